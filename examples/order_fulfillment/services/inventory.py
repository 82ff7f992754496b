"""The warehouse: pieces on the shelf, and what is reserved of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from .store import Keyed, Record, RefusedError, open_session, recall, remote, take_back


class OutOfStockError(RefusedError):
    """There is not enough on the shelf."""


class StockRow(Record):
    """A product on the shelf."""

    __tablename__ = "stock"

    sku: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


class ReservationRow(Keyed, Record):
    """Pieces taken off the shelf for an order."""

    __tablename__ = "reservations"

    lines: Mapped[list[ReservedLine]] = relationship(order_by="ReservedLine.sku")


class ReservedLine(Record):
    """Pieces of one product in a reservation."""

    __tablename__ = "reserved_lines"

    reservation_id: Mapped[int] = mapped_column(sa.ForeignKey(ReservationRow.id), primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The warehouse's answer."""

    number: int


def stock_up(pieces: Mapping[str, int]) -> None:
    """Fill an empty shelf."""
    with open_session.begin() as session:
        session.add_all(StockRow(sku=sku, pieces=count) for sku, count in pieces.items())


@remote
def reserve(
    session: Session, order_id: str, quantities: Mapping[str, int], *, key: str
) -> Reservation:
    """
    Take pieces off the shelf for an order: all of them or none.

    Raises:
        OutOfStockError: There are too few of something.
    """
    row = recall(session, ReservationRow, key)
    if row is None:
        for sku in sorted(quantities):  # always in this order, so that no two orders deadlock
            _move(session, sku, -quantities[sku])
        lines = [ReservedLine(sku=sku, pieces=count) for sku, count in quantities.items()]
        row = ReservationRow(key=key, order_id=order_id, lines=lines)
        session.add(row)
        session.flush()
    return Reservation(row.id)


@remote
def release(session: Session, *, key: str) -> None:
    """Put what was reserved under `key` back on the shelf."""
    row = take_back(session, ReservationRow, key)
    if row is not None:
        for line in row.lines:
            _move(session, line.sku, line.pieces)


def _move(session: Session, sku: str, pieces: int) -> None:
    there_are_enough = (StockRow.sku == sku, StockRow.pieces + pieces >= 0)
    more = StockRow.pieces + pieces
    moved = session.scalar(
        sa.update(StockRow).where(*there_are_enough).values(pieces=more).returning(StockRow.sku)
    )
    if moved is None:
        raise OutOfStockError(f"fewer than {-pieces} of {sku} left")
