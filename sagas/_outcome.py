"""What a saga ends with: the errors, built from plain data and found again in DBOS's rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._errors import (
    CompensationFailedError,
    Failure,
    NotUndone,
    SagaCancelledError,
    SagaFailedError,
    SagaOutcomeError,
    SagaParkedError,
    SagaTerminatedError,
    SagaTimeoutError,
    StepRef,
)
from ._marks import Marks
from ._status import SagaStatus, parked_reason, saga_status

_BY_NAME: dict[str, type[SagaOutcomeError]] = {
    cls.__name__: cls
    for cls in (
        SagaFailedError,
        SagaCancelledError,
        SagaTimeoutError,
        SagaParkedError,
        CompensationFailedError,
        SagaTerminatedError,
    )
}


def _enumerate(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def failed(saga_id: str, name: str, failure: Failure, undone: Sequence[StepRef]) -> SagaFailedError:
    """The end of a saga that failed and is undone."""
    steps = _enumerate([r.name for r in undone])
    work = f"undone: {steps}" if undone else "there was nothing to undo"
    return SagaFailedError(
        f"Saga {saga_id!r} ({name}): {failure}; {work}.",
        saga_id=saga_id,
        failure=failure,
        undone=undone,
    )


def compensation_failed(
    saga_id: str,
    name: str,
    failure: Failure,
    undone: Sequence[StepRef],
    not_undone: Sequence[NotUndone],
) -> CompensationFailedError:
    """The end of a saga of which an undo failed for good."""
    left = _enumerate([str(n) for n in not_undone])
    first = next((n.failure for n in not_undone if n.failure is not None), None)
    cause = f" The undo failed with {first.error_type}: {first.message}." if first else ""
    return CompensationFailedError(
        f"Saga {saga_id!r} ({name}) is parked: {failure}; while it was being undone an undo "
        f"failed for good. Effects that stand: {left}.{cause} Mend what is in the way of the "
        f"undo, or undo by hand.",
        saga_id=saga_id,
        failure=failure,
        undone=undone,
        not_undone=not_undone,
        reason=f"not undone: {left}",
    )


def parked(saga_id: str, name: str, reason: str, failure: Failure | None) -> SagaParkedError:
    """The state of a saga that the machinery could not go on with."""
    return SagaParkedError(
        f"Saga {saga_id!r} ({name}) is parked, nothing of it is lost: {reason}.",
        saga_id=saga_id,
        failure=failure,
        reason=reason,
    )


def recorded(error: Any) -> SagaOutcomeError | None:
    """
    The outcome that DBOS has stored for a saga; None where it is none of ours.

    A saga that was started in portable JSON has its error stored as name, message and data.
    """
    if isinstance(error, SagaOutcomeError):
        return error
    cls = _BY_NAME.get(str(getattr(error, "name", "")))
    data = getattr(error, "data", None)
    if cls is None or not isinstance(data, dict) or "saga_id" not in data:
        return None
    facts: dict[str, Any] = {"saga_id": data["saga_id"]}
    failure = data.get("failure")
    if isinstance(failure, dict):
        facts["failure"] = Failure(
            failure.get("step"),
            failure.get("step_id"),
            str(failure.get("error_type")),
            str(failure.get("message")),
        )
    facts["undone"] = tuple(StepRef(i, n) for i, n in data.get("undone", ()))
    if issubclass(cls, SagaCancelledError | SagaParkedError):
        facts["reason"] = str(data.get("reason") or "")
    if issubclass(cls, CompensationFailedError):
        facts["not_undone"] = tuple(
            NotUndone(i, n, None if kind is None else Failure(n, i, kind, ""))
            for i, n, kind in data.get("not_undone", ())
        )
    return cls(str(getattr(error, "message", error)), **facts)


def ended_with(row: Any) -> SagaOutcomeError | None:
    """
    What `SagaHandle.result` raises for a saga; None while it runs or if it completed.

    Args:
        row: DBOS's `WorkflowStatus`.
    """
    marks = Marks.parse(row.attributes)
    ours = recorded(row.error)
    status = saga_status(row.status, marks, ours)
    if ours is not None or not status.is_final or status is SagaStatus.COMPLETED:
        return ours
    cause = marks.turn.cause if marks.turn is not None else None
    return parked(row.workflow_id, row.name, parked_reason(row.status, marks, row.error), cause)
