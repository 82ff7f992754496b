"""What a saga ends with: the errors, built from plain data and found again in DBOS's rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps._errors import StepTimeoutError

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
from ._marks import Marks, Turn
from ._status import SagaStatus, parked_reason, saga_status
from ._stop import Stop, Why

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


def failed(saga_id: str, name: str, turn: Turn, undone: Sequence[StepRef]) -> SagaFailedError:
    """The end of a saga that failed, or was stopped, and is undone."""
    steps = _enumerate([r.name for r in undone])
    work = f"undone: {steps}" if undone else "there was nothing to undo"
    why = str(turn.cause) if turn.stop is None else turn.stop.text
    message = f"Saga {saga_id!r} ({name}): {why}; {work}."
    return _stopped(message, turn.stop, saga_id=saga_id, failure=turn.cause, undone=undone)


def _stopped(message: str, stop: Stop | None, **facts: Any) -> SagaFailedError:
    if stop is None:
        return SagaFailedError(message, **facts)
    if stop.why.is_timeout:
        return SagaTimeoutError(message, **facts)
    return SagaCancelledError(message, reason=stop.reason, **facts)


def stopped_step(saga_id: str, name: str, stop: Stop, *, began: bool) -> Exception:
    """What a step raises that does not begin, or is not tried again, as something was stopped."""
    if stop.why is Why.SCOPE:
        late = StepTimeoutError(stop.reason, stop.limit or 0.0)
        late.__dict__[_BEGAN] = began
        return late
    error = _stopped(f"Saga {saga_id!r} ({name}) {stop.text}.", stop, saga_id=saga_id)
    error.__dict__[_STOP] = stop.as_json()
    error.__dict__[_BEGAN] = began
    return error


_STOP, _BEGAN = "saga_stop", "step_began"


def stop_of(error: BaseException) -> Stop | None:
    """What stopped the saga at the step that raised this, live and after a replay."""
    return Stop.parse(error.__dict__.get(_STOP))


def is_refusal(error: BaseException) -> bool:
    """Whether it is what `stopped_step` made."""
    return _BEGAN in error.__dict__


def had_begun(error: BaseException) -> bool:
    """Whether a step that raised this had been begun: not one that `stopped_step` kept from it."""
    return error.__dict__.get(_BEGAN) is not False


def never_ran(saga_id: str, name: str, stop: Stop | None) -> SagaFailedError:
    """The end of a saga that was cancelled before it began."""
    stop = stop or Stop(Why.DBOS_CANCEL, "its workflow was cancelled in DBOS")
    message = f"Saga {saga_id!r} ({name}): {stop.text}, before it began; nothing was done."
    return SagaCancelledError(message, saga_id=saga_id, reason=stop.reason)


def terminated(saga_id: str, name: str, stop: Stop, failure: Failure | None) -> SagaTerminatedError:
    """The end of a saga that was stopped where it was."""
    who = f" by {stop.by}" if stop.by else ""
    why = f": {stop.reason}" if stop.reason else ""
    return SagaTerminatedError(
        f"Saga {saga_id!r} ({name}) was terminated{who}{why}. What it had done and not yet undone "
        f"stands: see its history, which does not show a step that was running.",
        saga_id=saga_id,
        failure=failure,
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
        f"undo and `retry` the saga, or undo by hand and `resolve` the step.",
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
    cause = marks.turn.cause if marks.turn is not None else None
    if status is SagaStatus.TERMINATED and marks.terminated is not None:
        return terminated(row.workflow_id, row.name, marks.terminated, cause)
    if ours is not None or not status.is_final or status is SagaStatus.COMPLETED:
        return ours
    if status is SagaStatus.FAILED:
        return never_ran(row.workflow_id, row.name, marks.stop)
    return parked(row.workflow_id, row.name, parked_reason(marks, row.error), cause)
