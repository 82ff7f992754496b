"""
Failover: the sagas of an executor that is dead go on elsewhere. On PostgreSQL.

Every process holds its executor's name (`_session`). A name that stays free for long enough, while
sagas are running under it, is that of a dead executor. Whoever gets the name then sees to its
sagas, alone: DBOS's resume would run one twice, if two asked for it. Where a process is launched
under the name first, DBOS resumes them there.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _dbos
from ._absence import Absence, observe
from ._marks import TAKEOVERS, Marks, Parked
from ._session import SessionLock

log = logging.getLogger("sagas")

AT_ONCE = 2.0
"""Seconds to hold a dead executor's name: a process that is launched under it waits for five."""

PAGE = 50
"""How many sagas to list at a time, so that what is known of them is fresh."""

SHARE = 50
"""Executors are listed during one part in so many of the time: it takes all running sagas."""


class Action(enum.Enum):
    """What to do with a saga of a dead executor."""

    RESUME = "resume"
    PARK = "park"
    FINISH = "finish"
    """Whoever marked it as stopped died before it was."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What was done with the sagas of a dead executor, by their IDs."""

    executor_id: str
    resumed: tuple[str, ...]
    parked: tuple[str, ...]
    """Each has brought down one executor too many."""
    finished: tuple[str, ...]
    """Stopped before, by a mark; now DBOS knows of it."""


def action(marks: Marks, limit: int | None) -> Action:
    """
    What to do with a saga of a dead executor.

    Args:
        marks: The saga's.
        limit: How often it may be taken over; None: any number of times.
    """
    if marks.parked is not None or marks.terminated is not None:
        return Action.FINISH
    if marks.is_worn_out(limit):
        return Action.PARK
    return Action.RESUME


class Failover:
    """
    Looks after the executors of one application and version. For one thread.

    Args:
        lock: This process's own name.
        app: The application.
        app_version: Its version: another one's sagas are not ours to run.
        names: The sagas that this process knows.
        max_takeovers: How often a saga of this name may be taken over; None: any number of times.
        patience: Seconds for which a dead executor's name is free at every look.
        clock: That of `lock.since`.
    """

    def __init__(
        self,
        lock: SessionLock,
        app: str,
        app_version: str,
        names: Callable[[], Sequence[str]],
        *,
        max_takeovers: Callable[[str], int | None],
        patience: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock
        self._app = app
        self._app_version = app_version
        self._names = names
        self._max_takeovers = max_takeovers
        self._patience = patience
        self._clock = clock
        self._absences: dict[str, Absence] = {}
        self._running: set[str] = set()
        self._asked: dict[str, float] = {}
        self._list_at = float("-inf")

    def look(self) -> list[Takeover]:
        """
        Look once at all other executors, and take over from those that are dead.

        To be called every few seconds: an executor is dead after three looks at the earliest. It
        does nothing while this process does not hold its own name.

        Durability:
            A crash amid a takeover leaves the rest of the sagas for the next one.

        Raises:
            SQLAlchemyError, DBOSException: The database does not answer.
        """
        self._list_executors()
        asked_since = self._clock() - 10 * self._patience
        self._asked = {e: at for e, at in self._asked.items() if at >= asked_since}
        free = self._lock.free(self._running | set(self._asked))
        self._absences = observe(self._absences, free, self._clock(), self._lock.since)
        dead = [e for e in sorted(self._running) if self._is_dead(e)]
        return [takeover for e in dead if (takeover := self._take_over(e)) is not None]

    def is_dead(self, executor_id: str) -> bool:
        """
        Whether an executor was dead when it was last looked at.

        One that has no running sagas is looked at only once this was asked for: ask again.
        """
        self._asked[executor_id] = self._clock()
        return self._is_dead(executor_id)

    @contextlib.contextmanager
    def in_its_name(self, executor_id: str) -> Iterator[bool]:
        """
        Act for a dead executor, alone. For seconds only: a launch under its name waits for that.

        Yields:
            Whether to act: not where it is not dead, has come back, or another acts for it.

        Raises:
            SQLAlchemyError: The database does not answer.
        """
        if not self.is_dead(executor_id):
            yield False
            return
        with self._lock.in_name_of(executor_id) as had:
            yield had

    def _is_dead(self, executor_id: str) -> bool:
        absence = self._absences.get(executor_id)
        return (
            absence is not None
            and self._lock.held
            and absence.first >= self._lock.since
            and absence.is_death(self._patience)
        )

    def _list_executors(self) -> None:
        begun = self._clock()
        if begun < self._list_at:
            return
        rows = _dbos.pending_rows(self._names(), self._app, self._app_version)
        own = self._lock.executor_id
        self._running = {row.executor_id for row in rows} - {None, own}
        ended = self._clock()
        self._list_at = ended + (SHARE - 1) * (ended - begun)

    def _take_over(self, executor_id: str) -> Takeover | None:
        done: dict[str, Action] = {}
        with self._lock.in_name_of(executor_id) as had:
            if not had:
                del self._absences[executor_id]  # somebody lives under this name, or acts for it
                return None
            deadline = self._clock() + AT_ONCE
            while rows := self._next_page(executor_id, done):
                for row in rows:
                    what = self._act(row) if self._clock() < deadline else None
                    if what is None:
                        return self._told(executor_id, done)
                    done[row.workflow_id] = what
            self._running.discard(executor_id)
        return self._told(executor_id, done)

    def _next_page(self, executor_id: str, done: Mapping[str, Action]) -> list[Any]:
        rows = _dbos.pending_rows(
            self._names(), self._app, self._app_version, executor_id=executor_id, limit=PAGE
        )
        # A process that holds no name may run under this one and have taken it back already.
        return [row for row in rows if row.workflow_id not in done]

    def _act(self, row: Any) -> Action | None:
        """Do what is to be done with a saga; None: the dead executor's name is no longer held."""
        marks = Marks.parse(row.attributes)
        what = action(marks, self._max_takeovers(row.name))
        if what is Action.RESUME:
            _dbos.mark(row.workflow_id, {TAKEOVERS: marks.takeovers + 1})
        elif what is Action.PARK:
            self._mark_parked(row, marks.takeovers + 1)
        # In an outage DBOS waits in the mark for as long as it takes; the name is lost by then.
        if not self._lock.holds(row.executor_id):
            return None
        if what is Action.RESUME:
            _dbos.resume(row.workflow_id, _dbos.queue_of(row))
        else:
            _dbos.cancel(row.workflow_id)
        return what

    def _mark_parked(self, row: Any, count: int) -> None:
        reason = (
            f"it was running in {count} processes that died, the last as "
            f"executor {row.executor_id!r}: more than its max_recovery_attempts "
            f"({self._max_takeovers(row.name)}) allow. See whether it brings them down"
        )
        log.error("Saga %s (%s) is parked: %s", row.workflow_id, row.name, reason)
        _dbos.mark(row.workflow_id, Parked(reason, _dbos.now()).attributes())

    def _told(self, executor_id: str, done: Mapping[str, Action]) -> Takeover | None:
        if not done:
            return None
        resumed, parked, finished = (
            tuple(saga_id for saga_id, what in done.items() if what is wanted)
            for wanted in (Action.RESUME, Action.PARK, Action.FINISH)
        )
        log.warning(
            "Executor %r of %r is dead: of its sagas %d go on elsewhere, %d are parked, and %d had "
            "been stopped.",
            executor_id,
            self._app,
            len(resumed),
            len(parked),
            len(finished),
        )
        return Takeover(executor_id, resumed, parked, finished)
