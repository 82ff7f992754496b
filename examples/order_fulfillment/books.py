"""What the services have on their books: a snapshot to be audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from .services.inventory import ReservationRow, StockRow
from .services.mail import MessageRow
from .services.payments import PaymentRow
from .services.shipping import ShipmentRow
from .services.store import Keyed, open_session

KINDS: dict[str, type[Keyed]] = {
    "reservation": ReservationRow,
    "payment": PaymentRow,
    "shipment": ShipmentRow,
    "confirmation": MessageRow,
}
"""What a service does for an order, and where that is kept."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that a service did for an order."""

    kind: str
    """One of `KINDS`."""
    key: str
    order_id: str
    undone: bool
    repeats: int
    """How often it, or its undo, was asked for again."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What an order holds of the stock."""

    order_id: str
    pieces: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Money:
    """What was taken for an order and given back, in cents."""

    order_id: str
    captured: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Books:
    """The state of all four services."""

    stock: Mapping[str, int]
    """What is left on the shelf, in pieces."""
    reserved: tuple[Reserved, ...]
    """What is off the shelf."""
    money: tuple[Money, ...]
    deeds: tuple[Deed, ...]
    """All that was ever done, undone or not."""


def read_books() -> Books:
    """The books as they are now; the services must be `connected`."""
    with open_session.begin() as session:
        reservations = session.scalars(sa.select(ReservationRow).where(~ReservationRow.undone))
        return Books(
            stock={row.sku: row.pieces for row in session.scalars(sa.select(StockRow))},
            reserved=tuple(
                Reserved(row.order_id, {line.sku: line.pieces for line in row.lines})
                for row in reservations
            ),
            money=tuple(
                Money(row.order_id, row.captured, row.refunded)
                for row in session.scalars(sa.select(PaymentRow))
            ),
            deeds=tuple(
                Deed(kind, row.key, row.order_id, row.undone, row.repeats)
                for kind, table in KINDS.items()
                for row in session.scalars(sa.select(table))
            ),
        )
