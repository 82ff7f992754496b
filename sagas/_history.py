"""What can be seen of a saga: snapshots, made from the rows that DBOS keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from steps._attempts import attempts_of, describe, type_name
from steps._errors import RetriesExhaustedError, StepFailedError, StepTimeoutError
from steps.abc import Retried

from ._errors import Failure, SagaOutcomeError, SagaParkedError
from ._marks import AuditEntry, Marks, of_user
from ._messages import NONE, RESOLVED, SENTINEL, kind
from ._outcome import ended_with
from ._stack import undone_name, undone_step
from ._status import SagaStatus, StepStatus, saga_status
from ._stop import Stop

PIVOT = "saga:pivot"
"""What DBOS records a pivot under."""

DBOS_QUEUES = "_dbos_"
"""What the names of DBOS's own queues begin with: there it puts what it recovers or resumes."""

_NO_MARKS = Marks()

_WAITING = "DBOS.recv, going on"
"""What stands for the name of a wait that is going on, which DBOS has not recorded yet."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a saga, as it was when one looked."""

    step_id: int
    """Its place in the saga: drawn when it was called, so the order of calls."""
    name: str
    status: StepStatus
    result: Any = None
    """What it returned; None where it failed. A str where it no longer loads."""
    error: Failure | None = None
    """Why it failed."""
    attempts: int = 1
    """How often it was tried, in the execution that got its outcome."""
    executed_at: datetime | None = None
    """When it began."""
    completed_at: datetime | None = None
    """When it had ended, well or badly."""
    undo_executed_at: datetime | None = None
    """When its undo began, in the execution that got its outcome."""
    compensated_at: datetime | None = None
    """When its undo had ended, well or badly."""
    undo_error: Failure | None = None
    """Why its undo failed for good."""
    undo_attempts: int = 0
    """How often its undo was tried, in the execution that got its outcome."""
    note: str | None = None
    """What was said of it by the person who declared it undone."""
    resolved_by: str | None = None
    """Who that was."""


@dataclass(frozen=True, slots=True)
class SagaState:
    """A saga, as it was when one looked."""

    saga_id: str
    name: str
    status: SagaStatus
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    """When it ended; None while it has not."""
    result: Any = None
    """What it returned, once COMPLETED (not loaded by `list`)."""
    error: SagaOutcomeError | None = field(default=None, compare=False)
    """What `SagaHandle.result` raises, once it has ended without a result."""
    failure: Failure | None = None
    """Why it turned round; there from that moment on."""
    turned_at: datetime | None = None
    """When it turned round; None where it had nothing to undo."""
    reason: str | None = None
    """What a PARKED saga waits for, or what fails again and again in one that runs."""
    steps: tuple[StepRecord, ...] = ()
    """Its steps by ID (not loaded by `list`)."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the application attached to it."""
    queue: str | None = None
    executor_id: str | None = None
    """The process that ran it last."""
    app_version: str | None = None
    """The version of the application that runs it."""
    deadline: datetime | None = None
    """When its time is up; None where it was started without a limit of its own."""
    stop_requested: str | None = None
    """Why it is to turn round, while it has not."""
    audit: tuple[AuditEntry, ...] = ()
    """What was done to it from outside, oldest first."""

    @property
    def needs_attention(self) -> bool:
        """Whether a person has to look at it: it is PARKED, or fails again and again."""
        return self.status is SagaStatus.PARKED or self.reason is not None


def at(milliseconds: int | None) -> datetime | None:
    """A moment, from DBOS's epoch milliseconds."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def failure_of(error: Any, step: str | None = None, step_id: int | None = None) -> Failure:
    """A recorded error in plain data."""
    if not isinstance(error, BaseException):
        return Failure(step, step_id, "unknown", f"an error that no longer loads: {error!r:.200}")
    if isinstance(error, StepFailedError):
        return Failure(step, step_id, error.error_type, error.message, error.traceback)
    return Failure(step, step_id, type_name(error), describe(error))


def step_records(
    rows: Iterable[Mapping[str, Any]], marks: Marks = _NO_MARKS
) -> tuple[StepRecord, ...]:
    """
    The steps of a saga, each with its undo.

    Args:
        rows: What `DBOS.list_workflow_steps` returns.
        marks: What is written about the saga into its attributes.
    """
    records: dict[int, StepRecord] = {}
    for row in _whole_waits(sorted(rows, key=lambda row: int(row["function_id"]))):
        step_id, name = row["function_id"], row["function_name"]
        target = undone_step(name)
        if target is None:
            records[step_id] = _step_record(row)
        else:
            before = records.get(target) or StepRecord(
                target, undone_name(name) or "", StepStatus.COMPLETED
            )
            records[target] = _with_undo(before, row)
    records.update(_marked(records, marks))
    return tuple(records[i] for i in sorted(records))


def _whole_waits(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """
    `rows` by ID, with one for each wait.

    DBOS records two: `DBOS.recv`, and before it, under the next ID, a `DBOS.sleep` for its limit.
    The ID before these is the wait's own, and has no row. A wait that met the sentinel of an
    earlier one went on with two more.
    """
    ids = {row["function_id"] for row in rows} | {0}
    waits = {row["function_id"] for row in rows if row["function_name"] == "DBOS.recv"}
    first: int | None = None
    for row in rows:
        step_id, name = row["function_id"], row["function_name"]
        if name == "DBOS.recv":
            first = step_id if first is None else first
            output = row["output"]
            if kind(output) == SENTINEL and output.get("wait") != first:
                continue
            first = None
        elif name == "DBOS.sleep" and step_id - 1 in waits:
            continue
        elif name == "DBOS.sleep" and row is rows[-1] and not {step_id - 1, step_id - 2} & ids:
            row = {**row, "function_id": step_id - 1, "function_name": _WAITING}
        yield row


def _marked(records: Mapping[int, StepRecord], marks: Marks) -> dict[int, StepRecord]:
    """The records that marks change, or add."""
    found = {}
    unknown = marks.parked.step_id if marks.parked is not None else None
    if unknown is not None and marks.parked is not None:
        name = marks.parked.step or "?"
        record = records.get(unknown) or StepRecord(unknown, name, StepStatus.UNKNOWN, attempts=0)
        if record.status in (StepStatus.FAILED, StepStatus.TIMED_OUT, StepStatus.UNKNOWN):
            found[unknown] = replace(record, status=StepStatus.UNKNOWN)
    for step_id, resolution in marks.resolved.items():
        record = records.get(step_id) or StepRecord(step_id, "?", StepStatus.RESOLVED, attempts=0)
        if record.status is not StepStatus.COMPENSATED:
            found[step_id] = replace(
                record,
                status=StepStatus.RESOLVED,
                note=resolution.note,
                resolved_by=resolution.by,
            )
    return found


def _step_record(row: Mapping[str, Any]) -> StepRecord:
    step_id, name, error, output = (
        row["function_id"],
        row["function_name"],
        row["error"],
        row["output"],
    )
    status = StepStatus.COMPLETED if error is None else _how_it_failed(error)
    told = None if error is None else failure_of(error, name, step_id)
    if name == _WAITING:
        since = at(row["started_at_epoch_ms"])
        return StepRecord(step_id, "receive", StepStatus.PENDING, executed_at=since)
    result = output.result if isinstance(output, Retried) else output
    if name == "DBOS.recv":
        name = "receive"
        if kind(output) == SENTINEL:
            status, result = StepStatus.FAILED, None
            told = _ended_by(output, step_id)
        elif output == NONE:
            result = None
    return StepRecord(
        step_id=step_id,
        name=name,
        status=status,
        result=result,
        error=told,
        attempts=attempts_of(output if error is None else error),
        executed_at=at(row["started_at_epoch_ms"]),
        completed_at=at(row["completed_at_epoch_ms"]),
    )


def _ended_by(sentinel: Any, step_id: int) -> Failure | None:
    """What has ended a wait."""
    stop = Stop.parse(sentinel)
    if stop is None:
        return None
    kind_of = "SagaTimeoutError" if stop.why.is_timeout else "SagaCancelledError"
    return Failure("receive", step_id, f"sagas.{kind_of}", stop.text)


def _how_it_failed(error: Any) -> StepStatus:
    last = error.errors[-1] if isinstance(error, RetriesExhaustedError) else error
    return StepStatus.TIMED_OUT if isinstance(last, StepTimeoutError) else StepStatus.FAILED


def _with_undo(record: StepRecord, row: Mapping[str, Any]) -> StepRecord:
    error, output = row["error"], row["output"]
    if error is None and kind(output) == RESOLVED:
        # What its own undo had come to is told as it was.
        return replace(
            record,
            status=StepStatus.RESOLVED,
            compensated_at=at(row["completed_at_epoch_ms"]),
            note=str(output.get("note")),
        )
    status = StepStatus.COMPENSATED if error is None else StepStatus.COMPENSATION_FAILED
    return replace(
        record,
        status=status,
        undo_executed_at=at(row["started_at_epoch_ms"]),
        compensated_at=at(row["completed_at_epoch_ms"]),
        undo_error=None
        if error is None
        else failure_of(error, row["function_name"], record.step_id),
        undo_attempts=attempts_of(output if error is None else error),
    )


def has_passed_pivot(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a saga's recorded steps tell that it is past its point of no return."""
    return any(r.get("function_name") == PIVOT and r["error"] is None for r in rows)


def has_begun(row: Any, marks: Marks) -> bool:
    """
    Whether a saga that waits in a queue has run before, as far as its row tells.

    DBOS counts its recoveries anew when it resumes a workflow, so the marks are asked too.
    """
    internal = (row.queue_name or "").startswith(DBOS_QUEUES)
    taken_up = marks.takeovers or marks.retry or marks.parked_ms or marks.parked is not None
    return internal or bool(row.recovery_attempts) or bool(taken_up)


def _deadline(row: Any, marks: Marks) -> datetime | None:
    if marks.timeout is None or row.created_at is None:
        return None
    could_begin = max(row.created_at, row.delay_until_epoch_ms or 0)
    try:
        moment = at(could_begin)
        assert moment is not None
        return moment + timedelta(seconds=marks.timeout, milliseconds=marks.parked_ms)
    except OverflowError:
        return None  # beyond all calendars


def _reason(status: SagaStatus, error: SagaOutcomeError | None, marks: Marks) -> str | None:
    """What a person has to know."""
    if status is SagaStatus.PARKED:
        return error.reason if isinstance(error, SagaParkedError) else "parked"
    failing = marks.struggling
    if failing is None or status.is_final:
        return None
    what = f"step {failing.step_id} {failing.name!r}"
    what = what if marks.turn is None else f"the undo of {what}"
    return (
        f"{what} has failed {failing.attempts} times and is tried again; the last error: "
        f"{failing.error}"
    )


def saga_state(row: Any, steps: tuple[StepRecord, ...] = (), *, loaded: bool = True) -> SagaState:
    """
    A saga's state.

    Args:
        row: DBOS's `WorkflowStatus`.
        steps: Its steps.
        loaded: Whether the row carries the result.
    """
    marks = Marks.parse(row.attributes)
    error = ended_with(row)
    status = saga_status(row.status, marks, error, has_begun=has_begun(row, marks))
    failure = error.failure if error is not None else (marks.turn.cause if marks.turn else None)
    internal = (row.queue_name or "").startswith(DBOS_QUEUES)
    waits = status in (SagaStatus.STARTED, SagaStatus.PENDING)
    return SagaState(
        saga_id=row.workflow_id,
        name=row.name,
        status=status,
        created_at=at(row.created_at),
        updated_at=at(row.updated_at),
        completed_at=at(row.completed_at) if status.is_final else None,
        result=row.output if status is SagaStatus.COMPLETED and loaded else None,
        error=error,
        failure=failure,
        turned_at=at(marks.turn.time) if marks.turn else None,
        reason=_reason(status, error, marks),
        steps=steps,
        attributes=of_user(row.attributes),
        queue=None if internal else row.queue_name,
        executor_id=row.executor_id,
        app_version=row.app_version,
        deadline=_deadline(row, marks),
        stop_requested=marks.stop.text if marks.stop is not None and waits else None,
        audit=marks.audit,
    )
