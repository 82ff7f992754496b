"""How an execution knows that it is new: the call that created it says so."""

from __future__ import annotations

import threading
from contextvars import ContextVar


class Ticket:
    """
    Proof that the execution which redeems it was created by the very call that issued it.

    Only such an execution may skip the look at its row: every other may have marks to obey.

    Attributes:
        timeout: The time limit that it was started with, in seconds; None: its definition's.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.used = False
        self._settled = threading.Event()

    def redeem(self) -> bool:
        """Whether this is the first use."""
        first, self.used = not self.used, True
        self._settled.set()
        return first

    def void(self, _: object = None) -> None:
        """The call that issued it is over."""
        self._settled.set()

    def wait(self) -> bool:
        """Wait until it is used or void; whether it was used."""
        self._settled.wait()
        return self.used


current_ticket: ContextVar[Ticket | None] = ContextVar("sagas_ticket", default=None)
"""The ticket of the start that is going on here."""
