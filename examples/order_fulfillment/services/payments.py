"""The payment provider: captures, and refunds of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Mapped, Session, mapped_column

from .store import Keyed, Record, RefusedError, recall, remote, take_back

DECLINED = {"card-expired": "the card has expired", "card-no-funds": "not enough money"}


class CardDeclinedError(RefusedError):
    """The bank does not pay."""


class PaymentRow(Keyed, Record):
    """Money taken for an order, in cents, and what was given back of it."""

    __tablename__ = "payments"

    captured: Mapped[int]
    refunded: Mapped[int] = mapped_column(default=0)


@dataclass(frozen=True, slots=True)
class Payment:
    """The provider's answer."""

    number: int
    cents: int


@remote
def capture(session: Session, order_id: str, card: str, cents: int, *, key: str) -> Payment:
    """
    Take money from a card.

    Raises:
        CardDeclinedError: The bank does not pay.
    """
    row = recall(session, PaymentRow, key)
    if row is None:
        if card in DECLINED:
            raise CardDeclinedError(DECLINED[card])
        row = PaymentRow(key=key, order_id=order_id, captured=cents)
        session.add(row)
        session.flush()
    return Payment(row.id, row.captured)


@remote
def refund(session: Session, cents: int, *, key: str) -> None:
    """Give back money that was captured under `key`."""
    row = take_back(session, PaymentRow, key)
    if row is not None:
        row.refunded += cents
