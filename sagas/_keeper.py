"""
Keeps this process's name: a thread that asks nothing else of the database.

DBOS's own calls wait out an outage, for minutes if need be. A thread that is in one of them cannot
see that its lock is gone, and others would take this process for dead. So the lock has a thread
to itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ._lock import ExecutorLock
from ._session import Hold, SessionLock

log = logging.getLogger("sagas")

INTERVAL = 1.0
"""Seconds between two looks."""


class Keeper:
    """
    Looks after the lock of a process on PostgreSQL.

    Args:
        lock: The lock.
        lost: Called when another process has taken the name.
        regained: Called when the name was free for a while, and is held again.
    """

    def __init__(
        self, lock: SessionLock, *, lost: Callable[[], None], regained: Callable[[], None]
    ) -> None:
        self._lock = lock
        self._lost = lost
        self._regained = regained
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sagas-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    @property
    def holds(self) -> bool:
        """Whether the name was held at the last look."""
        return self._lock.held

    def _run(self) -> None:
        since = self._lock.since
        hold = Hold.HELD
        while not self._stopping.wait(INTERVAL):
            before, hold = hold, self._lock.maintain()
            if hold is Hold.TAKEN and before is not Hold.TAKEN:
                log.error(
                    "Another process has taken the name of executor %r: this one begins nothing "
                    "more until it has it back.",
                    self._lock.executor_id,
                )
                self._lost()
            elif hold is Hold.HELD and self._lock.since != since:
                since = self._lock.since
                self._regained()


def keeper_of(
    lock: ExecutorLock | None, *, lost: Callable[[], None], regained: Callable[[], None]
) -> Keeper | None:
    """A keeper for a lock that needs one; None for one that cannot be lost."""
    if not isinstance(lock, SessionLock):
        return None
    return Keeper(lock, lost=lost, regained=regained)
