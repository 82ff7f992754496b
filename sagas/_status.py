"""What a saga's state is called, derived from what DBOS has stored of it. Pure."""

from __future__ import annotations

from enum import StrEnum

from ._errors import SagaOutcomeError, SagaParkedError, SagaTerminatedError
from ._marks import Marks


class SagaStatus(StrEnum):
    """The state of a saga."""

    STARTED = "STARTED"
    """Initiated, not yet running: it waits in a queue, or for its delay."""
    PENDING = "PENDING"
    """Running, or waiting for a step; also after a crash, until it is resumed."""
    COMPENSATING = "COMPENSATING"
    """Undoing what it has done."""
    COMPLETED = "COMPLETED"
    """Every step succeeded."""
    FAILED = "FAILED"
    """Failed, and every completed step is undone."""
    PARKED = "PARKED"
    """Cannot go on by itself and needs a person; nothing is lost."""
    TERMINATED = "TERMINATED"
    """Stopped on purpose, nothing undone."""

    @property
    def is_final(self) -> bool:
        """Whether it stays so by itself."""
        return self not in (SagaStatus.STARTED, SagaStatus.PENDING, SagaStatus.COMPENSATING)


class StepStatus(StrEnum):
    """The state of one step of a saga."""

    PENDING = "pending"
    """It waits: for a message, or for its time."""
    EXECUTING = "executing"
    """Its body is running in this process."""
    COMPLETED = "completed"
    """It succeeded, and its effect stands."""
    FAILED = "failed"
    """It raised; its effect did not happen."""
    TIMED_OUT = "timed_out"
    """It took longer than its limit."""
    UNKNOWN = "unknown"
    """Whether it took effect is not known; its saga is parked."""
    COMPENSATING = "compensating"
    """Its undo is running in this process, or fails and is tried again."""
    COMPENSATED = "compensated"
    """It was undone."""
    COMPENSATION_FAILED = "compensation_failed"
    """Its undo failed for good."""
    RESOLVED = "resolved"
    """A person has declared it undone."""


def saga_status(
    dbos_status: str,
    marks: Marks,
    error: BaseException | str | None,
    *,
    has_begun: bool = False,
) -> SagaStatus:
    """
    The state of a saga.

    Args:
        dbos_status: What DBOS calls it.
        marks: What is written about it into its attributes.
        error: What it ended with, where DBOS says ERROR; a str where it no longer loads.
        has_begun: Whether it has run before: DBOS enqueues what it recovers.
    """
    match dbos_status:
        case "SUCCESS":
            return SagaStatus.COMPLETED
        case "ERROR":
            return _ended(marks, error)
        case "ENQUEUED" | "DELAYED" if marks.turn is None and not has_begun:
            return SagaStatus.STARTED
        case "CANCELLED" | "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
            if marks.terminated is not None:
                return SagaStatus.TERMINATED
            if marks.parked is not None:
                return SagaStatus.PARKED
            if marks.never_ran:
                return SagaStatus.FAILED
            # DBOS stopped it where it stands; the supervisor takes it up from there.
            return SagaStatus.PENDING if marks.turn is None else SagaStatus.COMPENSATING
        case _:
            return SagaStatus.PENDING if marks.turn is None else SagaStatus.COMPENSATING


def _ended(marks: Marks, error: BaseException | str | None) -> SagaStatus:
    if isinstance(error, SagaTerminatedError):
        return SagaStatus.TERMINATED
    if isinstance(error, SagaOutcomeError) and not isinstance(error, SagaParkedError):
        return SagaStatus.FAILED
    return SagaStatus.PARKED if marks.terminated is None else SagaStatus.TERMINATED


def parked_reason(marks: Marks, error: BaseException | str | None) -> str:
    """Why a PARKED saga cannot go on by itself."""
    if isinstance(error, SagaParkedError):
        return error.reason
    if marks.parked is not None:
        return marks.parked.reason
    return f"DBOS ended it with an error that is no outcome of a saga: {error!r}"
