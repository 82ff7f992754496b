"""
The supervisor: one thread in each process, which sees to it that no saga stops half-way.

In each round it

1. hands requests that were made from outside to the sagas that run here (the *watcher*);
2. finds sagas of this process that DBOS cancelled or gave up, sees that their executions here have
   ended, writes down why, and resumes them, to turn round (the *reaper*);
3. resumes sagas whose execution here ended without an outcome: an awaiting task was cancelled, the
   database was away;
4. reports undos that fail again and again;
5. parks sagas that were handed to this process, which has not their code;
6. on PostgreSQL, keeps this process's lock, and takes over the sagas of processes that are gone.

What it does is written down before it is done, so another supervisor can finish it. It never acts
on the sagas of a process that is alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from . import _dbos, _kept, _registry, _running, _settings
from ._failover import Failover
from ._marks import (
    NEVER_RAN,
    REQUEST,
    TAKEOVERS,
    TERMINATED,
    Marks,
    Parked,
    Struggling,
    json_text,
    stop_attributes,
)
from ._reaping import Action, Decision, Stopped, decide
from ._stack import undone_name
from ._strangers import Strangers

log = logging.getLogger("sagas")

MARGIN = timedelta(seconds=120)
"""How far back a look goes behind the one before it: clocks differ, and commits take time."""

BUSY = 20
"""A round that takes long is followed by a rest of so many times that, ..."""

LONGEST_REST = 2.0
"""... but of so many seconds at most: it may have waited for a database that was away."""

LOOKS = 4
"""How often to look for an executor within the time after which it counts as gone."""

STRANGERS = 5.0
"""Seconds between two looks for sagas whose code is not here."""

LONGEST_OUTAGE = 5.0
"""Seconds between two tries while the database is away, at most."""


_ANYBODYS = (Action.NEVER_RAN, Action.NOTHING)


class Supervisor:
    """
    Looks after the sagas of this process.

    Args:
        executor_id: This process, as DBOS calls it.
        by_attributes: Whether the database can search by attributes (PostgreSQL).
        holds: Whether this process holds its executor's name.
        failover: Takes over from other processes that are gone; None: that is off.
        strangers: Finds what is this process's by its row, and does not run here.
    """

    def __init__(
        self,
        executor_id: str,
        *,
        by_attributes: bool,
        holds: Callable[[], bool] = lambda: True,
        failover: Failover | None = None,
        strangers: Strangers | None = None,
    ) -> None:
        self._executor = executor_id
        self._by_attributes = by_attributes
        self._holds = holds
        self._failover = failover
        self._failover_at = time.monotonic()
        self._strangers = strangers
        self._strangers_at = time.monotonic() + STRANGERS
        self._unsure = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._noticed: set[str] = set()
        self._lost: set[str] = set()
        self._stopped: dict[str, str | None] = {}
        self._looked: datetime | None = None
        self._thread = threading.Thread(target=self._run, name="sagas-supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        _running.set_watcher(self.notice, self.lost)
        self._thread.start()

    def stop(self) -> None:
        """End, when the round that is going on is over."""
        _running.set_watcher(None, None)
        self._stopping.set()
        self._wake.set()
        self._thread.join(LONGEST_OUTAGE)  # it may hang in a database that is away

    def notice(self, saga_id: str) -> None:
        """The marks of a saga that runs here have changed; called from any thread."""
        self._noticed.add(saga_id)
        self._wake.set()

    def lost(self, saga_id: str) -> None:
        """An execution has ended here without an outcome; called from any thread."""
        self._lost.add(saga_id)

    def doubt(self) -> None:
        """Others may have taken sagas away that run here; called from any thread."""
        self._unsure = True
        self._wake.set()

    def _run(self) -> None:
        rest = _settings.interval()
        while not self._stopping.is_set():
            self._wake.wait(rest)
            self._wake.clear()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                self.round()
                rest = _settings.interval()
            except Exception as error:
                # An outage, as a rule. What was to be done is found again by a later round.
                if not self._stopping.is_set():
                    log.warning("The saga supervisor is held up: %r", error)
                rest = min(max(rest * 2, 0.1), LONGEST_OUTAGE)
            rest = max(rest, min(BUSY * (time.monotonic() - began), LONGEST_REST))

    def round(self) -> None:
        """
        Look once at everything.

        Raises:
            Exception: The database did not answer.
        """
        if not self._holds():
            return
        if self._unsure:
            self._unsure = False
            self._fence_what_is_gone()
        self._watch()
        self._find_stopped()
        for saga_id in list(self._stopped):
            self._reap(saga_id)
        for saga_id in list(self._lost):
            self._revive(saga_id)
        self._report()
        if self._strangers is not None and time.monotonic() >= self._strangers_at:
            self._lost |= set(self._strangers.look())
            self._strangers_at = time.monotonic() + STRANGERS
        if self._failover is not None and time.monotonic() >= self._failover_at:
            self._failover.look()
            patience = _settings.failover() or LONGEST_OUTAGE
            self._failover_at = time.monotonic() + patience / LOOKS

    def _fence_what_is_gone(self) -> None:
        for row in self._rows_of(run.saga_id for run in _running.all_runs()):
            run = _running.of(row.workflow_id)
            if run is not None and (row.status != "PENDING" or row.executor_id != self._executor):
                run.fence(f"saga {row.workflow_id!r} was taken over by another process")

    # --- the watcher

    def _watch(self) -> None:
        noticed, self._noticed = self._noticed, set()
        if not _running.count():
            return
        if self._by_attributes:
            rows = _dbos.outside(_dbos.rows_with, {REQUEST: True}, self._executor)
            rows += self._rows_of(noticed - {row.workflow_id for row in rows})
        else:
            rows = self._rows_of(run.saga_id for run in _running.all_runs())
        for row in rows:
            run = _running.of(row.workflow_id)
            if run is None:
                continue
            marks = Marks.parse(row.attributes)
            if marks.resolved:
                run.resolve(marks.resolved)
            if marks.stop is not None:
                run.ask(marks.stop)
            if marks.terminated is not None and row.status == "PENDING":
                _dbos.outside(_dbos.cancel, row.workflow_id)  # whoever marked it came no further
            elif row.status not in _dbos.STOPPED:
                continue
            self._stopped[row.workflow_id] = _owner(row)

    def _rows_of(self, saga_ids: Iterable[str]) -> list[Any]:
        wanted = list(saga_ids)
        return _dbos.outside(_dbos.light_rows, wanted) if wanted else []

    # --- the reaper

    def _find_stopped(self) -> None:
        """Note the sagas that DBOS has stopped since the last look; all there are, at the first."""
        names = _registry.names()
        if not names:
            return
        before = datetime.now(UTC)
        since = None if self._looked is None else self._looked - MARGIN
        for row in _dbos.outside(_dbos.stopped_rows, names, since):
            if self._is_open(row):
                self._stopped[row.workflow_id] = _owner(row)
        self._looked = before

    def _is_open(self, row: Any) -> bool:
        marks = Marks.parse(row.attributes)
        final = marks.terminated is not None or marks.parked is not None or marks.never_ran
        return not final or _running.of(row.workflow_id) is not None

    def _reap(self, saga_id: str) -> None:
        """See to a saga that DBOS has stopped, if that is this process's to do."""
        executor = self._stopped[saga_id]
        if executor is None or executor == self._executor:
            self._reap_as(saga_id, self._executor)
        elif self._failover is not None and self._failover.is_dead(executor):
            with self._failover.in_its_name(executor) as had:
                if had:
                    self._reap_as(saga_id, executor)

    def _reap_as(self, saga_id: str, executor: str) -> None:
        row = _dbos.outside(_dbos.light_row, saga_id)
        if row is None or row.status not in _dbos.STOPPED:
            self._stopped.pop(saga_id, None)
            return
        marks = Marks.parse(row.attributes)
        began = bool(row.recovery_attempts or marks.takeovers or marks.turn)
        deadline = row.workflow_deadline_epoch_ms
        stopped = Stopped(
            name=row.name,
            dbos_status=row.status,
            marks=marks,
            began=began or bool(_dbos.outside(_dbos.list_step_names, saga_id)),
            running_here=_running.of(saga_id) is not None,
            timed_out=deadline is not None and deadline <= _dbos.now(),
        )
        decision = decide(stopped, _registry.of(row.name), _dbos.now())
        if row.executor_id != executor and decision.action not in _ANYBODYS:
            self._stopped[saga_id] = row.executor_id
            return
        self._carry_out(row, decision, marks)

    def _carry_out(self, row: Any, decision: Decision, marks: Marks) -> None:
        saga_id = row.workflow_id
        if decision.action is Action.FENCE:
            run = _running.of(saga_id)
            if run is not None:
                run.fence(f"saga {saga_id!r} was stopped in DBOS")
            return  # looked at again in the next round
        match decision.action:
            case Action.NEVER_RAN:
                self._mark(saga_id, {NEVER_RAN: True})
            case Action.TERMINATE:
                assert decision.stop is not None, "a saga is left for a reason"
                self._mark(saga_id, {TERMINATED: decision.stop.as_json()})
            case Action.PARK:
                log.error("Saga %s is parked: %s", saga_id, decision.reason)
                self._mark(saga_id, Parked(decision.reason, _dbos.now()).attributes())
            case Action.RESUME:
                assert decision.stop is not None, "a saga is turned round for a reason"
                log.warning("Saga %s %s; it is undone.", saga_id, decision.stop.reason)
                takeovers = {TAKEOVERS: marks.takeovers + 1}
                self._mark(saga_id, {**stop_attributes(decision.stop), **takeovers})
                if row.executor_id == self._executor:
                    _kept.hand_over(saga_id, marks.takeovers + 1)
                _dbos.outside(_dbos.resume, saga_id)
            case _:
                pass
        self._stopped.pop(saga_id, None)

    def _mark(self, saga_id: str, attributes: dict[str, Any]) -> None:
        _dbos.outside(_dbos.mark, saga_id, attributes)

    # --- executions that ended without an outcome

    def _revive(self, saga_id: str) -> None:
        if _running.of(saga_id) is not None:
            self._lost.discard(saga_id)  # the execution that goes on tells of its own end
            return
        row = _dbos.outside(_dbos.light_row, saga_id)
        if row is not None and row.status == "PENDING" and row.executor_id == self._executor:
            marks = Marks.parse(row.attributes)
            rules = _registry.of(row.name)
            most = None if rules is None else rules.max_recovery_attempts
            if marks.is_worn_out(most):
                reason = (
                    f"its executions ended {marks.takeovers} times without an outcome. Find out "
                    f"why, and `retry`"
                )
                self._mark(saga_id, Parked(reason, _dbos.now()).attributes())
                _dbos.outside(_dbos.cancel, saga_id)
            else:
                log.warning("Saga %s had stopped without an outcome; it goes on.", saga_id)
                self._mark(saga_id, {TAKEOVERS: marks.takeovers + 1})
                _dbos.outside(_dbos.resume, saga_id, _dbos.queue_of(row))
        self._lost.discard(saga_id)

    # --- undos that fail again and again

    def _report(self) -> None:
        least = _settings.attention_after()
        for run in _running.all_runs():
            for step_id, flight in list(run.in_flight.items()):
                failed, error = flight.failed, flight.error
                if not (run.compensating or flight.settling) or failed < least or error is None:
                    continue
                if failed < 2 * flight.reported:
                    continue
                text = f"{type(error).__name__}: {error}"
                name = undone_name(flight.name) or flight.name
                struggling = Struggling(step_id, name, failed, json_text(text))
                self._mark(run.saga_id, struggling.attributes())
                run.struggling = True
                flight.reported = failed


def _owner(row: Any) -> str | None:
    """The executor that must see to a saga; None: anyone may, as it has never run."""
    executor: str | None = row.executor_id if row.recovery_attempts else None
    return executor
