"""What the integration tests share: a ledger, a crash in process, a fast way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dbos import DBOS

from sagas import SagaHandle, SagaStatus, Supervision, _dbos, _settings
from sagas._marks import TAKEOVERS, Marks, stop_attributes
from sagas._session import Session, lock_key
from sagas._stop import Stop, Why

from ..conftest import FAST


class Crash(BaseException):
    """The process dies here, as far as this execution is concerned."""


class Ledger(list[str]):
    """What has taken effect, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._crashes: set[str] = set()
        self.died: list[str] = []

    def crash_at(self, *entries: str) -> None:
        """Die once, right after each of these effects."""
        self._crashes |= set(entries)

    def write(self, entry: str) -> None:
        """Take effect; perhaps die after it."""
        self.append(entry)
        self.perhaps_die(entry)

    def perhaps_die(self, entry: str) -> None:
        """Die, if that is to be after this effect."""
        if entry in self._crashes:
            self._crashes.remove(entry)
            self.died.append(entry)
            raise Crash(entry)


def until(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until `condition` holds, and return what it gave."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)
    return found


async def until_async(condition: Callable[[], Any]) -> None:
    """Wait on an event loop until `condition` holds."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - what it waits for may be on any thread
            await asyncio.sleep(0.005)


def resume(saga_id: str, *, to_end: bool = True) -> None:
    """Run an interrupted saga again, as a restart does."""
    if DBOS.retrieve_queue(FAST) is None:
        DBOS.register_queue(FAST, polling_interval_sec=0.01)
    DBOS.resume_workflow(saga_id, queue_name=FAST)
    if to_end:
        handle = SagaHandle[Any](saga_id)
        until(lambda: handle.status().is_final)


UNWATCHED = Supervision(interval=3600, grace=5.0)
"""For tests that resume their sagas themselves."""


@contextmanager
def grace(seconds: float) -> Iterator[None]:
    """Have bodies that ignore their limits be waited for so long."""
    before = _settings._current
    _settings.use(replace(before, grace=seconds))
    try:
        yield
    finally:
        _settings.use(before)


def has_left(saga_id: str) -> bool:
    """Whether no execution of a saga is going on here."""
    return not _runs(saga_id)


def stop_mark(why: Why, reason: str = "enough") -> dict[str, Any]:
    """What is written on a saga that is to turn round."""
    return stop_attributes(Stop(why, reason, None, _dbos.now()))


def take_up(saga_id: str, marks: dict[str, Any] | None = None, *, to_end: bool = True) -> None:
    """Resume an interrupted saga as the supervisor does, with these marks."""
    known = Marks.parse(DBOS.list_workflows(workflow_ids=[saga_id])[0].attributes)
    written = {TAKEOVERS: known.takeovers + 1, **(marks or {})}
    DBOS.update_workflow_attributes(saga_id, written, merge=True)
    resume(saga_id, to_end=to_end)


def crash_and_resume(starter: Any, *args: Any, ledger: Ledger, at: Sequence[str]) -> None:
    """Start a saga that dies after each of these effects in turn, and bring it to its end."""
    saga_id = starter._options.saga_id
    ledger.died.clear()
    ledger.crash_at(*at)
    starter.start(*args)
    for n in range(1, len(at) + 1):
        until(lambda n=n: len(ledger.died) == n and not _runs(saga_id))
        resume(saga_id, to_end=n == len(at))


def _runs(saga_id: str) -> bool:
    from sagas import _running

    return _running.of(saga_id) is not None


def names(saga_id: str) -> list[str]:
    """What DBOS has recorded of a saga, by step ID."""
    return [row["function_name"] for row in DBOS.list_workflow_steps(saga_id)]


def status(saga_id: str) -> SagaStatus:
    """A saga's state."""
    return SagaHandle[Any](saga_id).status()


def end_session(other: Session, app: str, executor_id: str) -> None:
    """End the session that holds an executor's name, as a restart of the server does."""
    key = lock_key(app, executor_id)
    pid = other.holders([key])[key]
    other.ask("SELECT pg_terminate_backend(:pid)", pid=pid)
    until(lambda: other.holders([key]).get(key) != pid)
