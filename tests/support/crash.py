"""
Crashes in process: an execution ends as if it had been killed, and is resumed.

An execution that ends with a `BaseException` of one's own is recorded nowhere and stays PENDING;
`DBOS.resume_workflow` runs it again. Unlike a death, such a crash leaves the siblings of the
crashed step running. So every body in a test comes through a `Crasher`: once an execution has
crashed, none of its bodies gets any further, and it is resumed when the last has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dbos import DBOS
from sqlalchemy import event
from sqlalchemy.engine import Engine

from sagas import SagaHandle, SagaStatus, Supervision, _running

QUEUE = "tests-resume"

_execution: ContextVar[int] = ContextVar("tests_execution", default=-1)
"""Which execution of its saga the code that runs here belongs to."""


class Crash(BaseException):
    """The end of an execution; `BaseException`, so that it is no failure of the saga."""


class Crasher:
    """
    Ends the executions of one saga at given points.

    Args:
        schedule: For each execution in turn the number of the point, from 0, at which it
            crashes. An execution beyond the schedule, or with fewer points, does not crash.
    """

    def __init__(self, schedule: tuple[int, ...] = ()) -> None:
        self._schedule = schedule
        self._lock = threading.Lock()
        self._passed = 0
        self._execution = 0
        self._dead = False
        self._entered = -1
        self.crashes: list[str] = []
        """The points at which it has crashed."""

    def enter(self) -> None:
        """An execution begins; called by the saga's body, before anything else."""
        _execution.set(self._execution)
        self._entered = self._execution

    @property
    def dead(self) -> bool:
        """Whether the execution of now has crashed."""
        return self._dead

    def has_entered(self) -> bool:
        """Whether the execution of now has begun."""
        return self._entered == self._execution

    def point(self, name: str) -> None:
        """
        Come by a point.

        Raises:
            Crash: The execution ends here, or has ended elsewhere.
        """
        with self._lock:
            if self._dead or _execution.get() != self._execution:
                raise Crash(name)
            here = self._passed
            self._passed += 1
            if self._execution < len(self._schedule) and self._schedule[self._execution] == here:
                self._dead = True
                self.crashes.append(name)
                raise Crash(name)

    def revive(self) -> None:
        """The next execution begins."""
        with self._lock:
            self._dead = False
            self._passed = 0
            self._execution += 1


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """
    Wait for a condition.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain: {what}")
        time.sleep(0.002)


def register_queue() -> None:
    """Register the queue on which crashed sagas are resumed; after each launch."""
    DBOS.register_queue(QUEUE, polling_interval_sec=0.02)


def run_to_its_end(
    handle: SagaHandle[object], crasher: Crasher, *, timeout: float = 30.0
) -> SagaStatus:
    """
    Resume a started saga after each of its crashes, until it has ended.

    Args:
        handle: Of the saga.
        crasher: Crashes it.
        timeout: Seconds that one execution may take.

    Raises:
        TimeoutError: It does not come to its end.
    """
    saga_id = handle.saga_id
    while True:
        # Looked up in the database only when it is over: SQLite's readers hold up its writers.
        wait_until(crasher.has_entered, f"{saga_id} does not begin")
        wait_until(
            lambda: _running.of(saga_id) is None, f"{saga_id} neither ends nor crashes", timeout
        )
        if not crasher.dead:
            wait_until(lambda: handle.status().is_final, f"{saga_id} has ended, but how?")
            return handle.status()
        crasher.revive()
        DBOS.resume_workflow(saga_id, queue_name=QUEUE)


@contextmanager
def without_fsync() -> Iterator[None]:
    """Let SQLite not wait for the disk: what crashes here is no machine."""

    def relax(connection: Any, record: Any) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


UNWATCHED = Supervision(interval=3600)
"""For tests that resume what has crashed themselves: the supervisor would do so as well."""
