"""The mail relay: messages to customers, and their retraction."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy.orm import Mapped, Session

from .store import Keyed, Record, RefusedError, recall, remote, take_back

ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
FULL = "@full.example"


class InvalidAddressError(RefusedError):
    """No mail can be sent there."""


class MessageRow(Keyed, Record):
    """A message that was sent; one that is undone was retracted."""

    __tablename__ = "messages"

    address: Mapped[str]
    text: Mapped[str]
    bounced: Mapped[bool]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The relay's answer."""

    number: int
    bounced: bool
    """Whether the message went out and came back."""


@remote
def send(session: Session, order_id: str, address: str, text: str, *, key: str) -> Confirmation:
    """
    Send a message.

    Raises:
        InvalidAddressError: That is no address.
    """
    row = recall(session, MessageRow, key)
    if row is None:
        if not ADDRESS.fullmatch(address):
            raise InvalidAddressError(f"{address!r} is no mail address")
        bounced = address.endswith(FULL)
        row = MessageRow(key=key, order_id=order_id, address=address, text=text, bounced=bounced)
        session.add(row)
        session.flush()
    return Confirmation(row.id, row.bounced)


@remote
def retract(session: Session, *, key: str) -> None:
    """Take back the message that was sent under `key`."""
    take_back(session, MessageRow, key)
