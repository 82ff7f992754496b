"""What can be seen of a saga: snapshots, made from the rows that DBOS keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from steps._attempts import attempts_of, describe, type_name
from steps._errors import StepFailedError
from steps.abc import Retried

from ._errors import Failure, SagaOutcomeError, SagaParkedError
from ._marks import Marks, of_user
from ._outcome import ended_with
from ._stack import undone_step
from ._status import SagaStatus, StepStatus, saga_status

DBOS_QUEUES = "_dbos_"
"""What the names of DBOS's own queues begin with: there it puts what it recovers or resumes."""


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
    """What a PARKED saga waits for."""
    steps: tuple[StepRecord, ...] = ()
    """Its steps by ID (not loaded by `list`)."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the application attached to it."""
    queue: str | None = None
    executor_id: str | None = None
    """The process that ran it last."""
    app_version: str | None = None
    """The version of the application that runs it."""

    @property
    def needs_attention(self) -> bool:
        """Whether a person has to look at it."""
        return self.status is SagaStatus.PARKED


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


def step_records(rows: Iterable[Mapping[str, Any]]) -> tuple[StepRecord, ...]:
    """
    The steps of a saga, each with its undo.

    Args:
        rows: What `DBOS.list_workflow_steps` returns.
    """
    records: dict[int, StepRecord] = {}
    for row in rows:
        target = undone_step(row["function_name"])
        if target is None:
            records[row["function_id"]] = _step_record(row)
        else:
            before = records.get(target) or StepRecord(
                target, row["function_name"].split(":", 2)[2], StepStatus.COMPLETED
            )
            records[target] = _with_undo(before, row)
    return tuple(records[i] for i in sorted(records))


def _step_record(row: Mapping[str, Any]) -> StepRecord:
    step_id, name, error, output = (
        row["function_id"],
        row["function_name"],
        row["error"],
        row["output"],
    )
    failed = error is not None
    return StepRecord(
        step_id=step_id,
        name=name,
        status=StepStatus.FAILED if failed else StepStatus.COMPLETED,
        result=output.result if isinstance(output, Retried) else output,
        error=failure_of(error, name, step_id) if failed else None,
        attempts=attempts_of(error if failed else output),
        executed_at=at(row["started_at_epoch_ms"]),
        completed_at=at(row["completed_at_epoch_ms"]),
    )


def _with_undo(record: StepRecord, row: Mapping[str, Any]) -> StepRecord:
    error = row["error"]
    failed = error is not None
    return replace(
        record,
        status=StepStatus.COMPENSATION_FAILED if failed else StepStatus.COMPENSATED,
        undo_executed_at=at(row["started_at_epoch_ms"]),
        compensated_at=at(row["completed_at_epoch_ms"]),
        undo_error=failure_of(error, row["function_name"], record.step_id) if failed else None,
        undo_attempts=attempts_of(error if failed else row["output"]),
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
    internal = (row.queue_name or "").startswith(DBOS_QUEUES)
    begun = internal or bool(row.recovery_attempts)
    status = saga_status(row.status, marks, error, has_begun=begun)
    failure = error.failure if error is not None else (marks.turn.cause if marks.turn else None)
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
        reason=error.reason if isinstance(error, SagaParkedError) else None,
        steps=steps,
        attributes=of_user(row.attributes),
        queue=None if internal else row.queue_name,
        executor_id=row.executor_id,
        app_version=row.app_version,
    )
