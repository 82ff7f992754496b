"""The carriers: shipments, and their cancellation before they are picked up."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Mapped, Session

from .store import Keyed, Record, RefusedError, recall, remote, take_back

DOMESTIC = {"DE", "AT", "CH"}
NOT_SERVED = {"AQ", "SJ"}


class NoCarrierError(RefusedError):
    """Nobody delivers there."""


class ShipmentRow(Keyed, Record):
    """A parcel that waits for its pick-up, or is cancelled."""

    __tablename__ = "shipments"

    reservation: Mapped[int]
    carrier: Mapped[str]


@dataclass(frozen=True, slots=True)
class Shipment:
    """The carrier's answer."""

    number: int
    carrier: str


@remote
def book(session: Session, order_id: str, reservation: int, country: str, *, key: str) -> Shipment:
    """
    Order the pick-up of what was reserved.

    Raises:
        NoCarrierError: Nobody delivers to that country.
    """
    row = recall(session, ShipmentRow, key)
    if row is None:
        if country in NOT_SERVED:
            raise NoCarrierError(f"nobody delivers to {country}")
        carrier = "Landpost" if country in DOMESTIC else "Europaket"
        row = ShipmentRow(key=key, order_id=order_id, reservation=reservation, carrier=carrier)
        session.add(row)
        session.flush()
    return Shipment(row.id, row.carrier)


@remote
def cancel(session: Session, *, key: str) -> None:
    """Call off the pick-up that was ordered under `key`."""
    take_back(session, ShipmentRow, key)
