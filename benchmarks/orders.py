"""The measured saga: four steps, each with an undo; the last fails for orders below zero."""

from __future__ import annotations

from sagas import saga
from steps import step


class Refused(Exception):
    """The last step's failure."""


def release_stock(stock: str, order: int) -> None:
    """Undo of the first step."""


def refund(payment: str, order: int) -> None:
    """Undo of the second step."""


def cancel_shipment(shipment: str, order: int) -> None:
    """Undo of the third step."""


def recall_message(message: str, order: int) -> None:
    """Undo of the last step."""


async def release_stock_async(stock: str, order: int) -> None:
    """Undo of the first step."""


async def refund_async(payment: str, order: int) -> None:
    """Undo of the second step."""


async def cancel_shipment_async(shipment: str, order: int) -> None:
    """Undo of the third step."""


async def recall_message_async(message: str, order: int) -> None:
    """Undo of the last step."""


@step(undo=release_stock)
def reserve_stock(order: int) -> str:
    return f"stock-{order}"


@step(undo=refund)
def charge(order: int) -> str:
    return f"payment-{order}"


@step(undo=cancel_shipment)
def ship(order: int) -> str:
    return f"shipment-{order}"


@step(undo=recall_message)
def confirm(order: int) -> str:
    if order < 0:
        raise Refused("no such customer")
    return f"message-{order}"


@step(undo=release_stock_async)
async def reserve_stock_async(order: int) -> str:
    return f"stock-{order}"


@step(undo=refund_async)
async def charge_async(order: int) -> str:
    return f"payment-{order}"


@step(undo=cancel_shipment_async)
async def ship_async(order: int) -> str:
    return f"shipment-{order}"


@step(undo=recall_message_async)
async def confirm_async(order: int) -> str:
    if order < 0:
        raise Refused("no such customer")
    return f"message-{order}"


@saga
def fulfil(order: int) -> str:
    """The measured saga, sync."""
    reserve_stock(order)
    charge(order)
    ship(order)
    return confirm(order)


@saga
async def fulfil_async(order: int) -> str:
    """The measured saga, async."""
    await reserve_stock_async(order)
    await charge_async(order)
    await ship_async(order)
    return await confirm_async(order)
