"""The saga of an order: four steps, each with its undo."""

from __future__ import annotations

from sagas import saga
from steps import RetryPolicy, idempotency_key, step

from .orders import Order
from .services import inventory, mail, payments, shipping
from .services.inventory import Reservation
from .services.mail import Confirmation
from .services.payments import Payment
from .services.shipping import Shipment
from .services.store import RefusedError

# A refusal is final at once; a fault of the network is tried again, in an undo for ever.
PATIENT = RetryPolicy(max_attempts=5, first_delay=0.1, give_up_on=RefusedError)
STUBBORN = RetryPolicy(max_attempts=None, first_delay=0.1, give_up_on=RefusedError)


class CustomerUnreachableError(Exception):
    """The confirmation came back."""


def release_inventory(reservation: Reservation) -> None:
    inventory.release(key=idempotency_key())


@step(undo=release_inventory, retry=PATIENT, undo_retry=STUBBORN)
def reserve_inventory(order: Order) -> Reservation:
    return inventory.reserve(order.order_id, order.quantities, key=idempotency_key())


def refund_payment(payment: Payment) -> None:
    payments.refund(payment.cents, key=idempotency_key())


@step(undo=refund_payment, retry=PATIENT, undo_retry=STUBBORN)
def process_payment(order: Order) -> Payment:
    return payments.capture(order.order_id, order.card, order.cents, key=idempotency_key())


def cancel_shipment(shipment: Shipment) -> None:
    shipping.cancel(key=idempotency_key())


@step(undo=cancel_shipment, retry=PATIENT, undo_retry=STUBBORN)
def create_shipment(order: Order, reservation: Reservation) -> Shipment:
    return shipping.book(order.order_id, reservation.number, order.country, key=idempotency_key())


def retract_confirmation(confirmation: Confirmation) -> None:
    mail.retract(key=idempotency_key())


@step(undo=retract_confirmation, retry=PATIENT, undo_retry=STUBBORN)
def send_confirmation(order: Order, shipment: Shipment) -> Confirmation:
    text = f"Dear {order.customer}, {shipment.carrier} brings your order {order.order_id}."
    return mail.send(order.order_id, order.mail, text, key=idempotency_key())


@saga
def fulfil_order(order: Order) -> Confirmation:
    """Reserve, charge, ship and confirm an order: all of it, or in the end nothing."""
    reservation = reserve_inventory(order)
    process_payment(order)
    shipment = create_shipment(order, reservation)
    confirmation = send_confirmation(order, shipment)
    if confirmation.bounced:
        raise CustomerUnreachableError(f"the mail to {order.mail} came back")
    return confirmation
