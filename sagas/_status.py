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

    EXECUTING = "executing"
    """Its body is running in this process."""
    COMPLETED = "completed"
    """It succeeded, and its effect stands."""
    FAILED = "failed"
    """It raised; its effect did not happen."""
    COMPENSATING = "compensating"
    """Its undo is running in this process."""
    COMPENSATED = "compensated"
    """It succeeded and was undone."""
    COMPENSATION_FAILED = "compensation_failed"
    """It succeeded and its undo failed for good."""


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
        marks: What the saga wrote into its attributes.
        error: What it ended with, where DBOS says ERROR; a str where it no longer loads.
        has_begun: Whether it has run before: DBOS enqueues what it recovers.
    """
    match dbos_status:
        case "ENQUEUED" | "DELAYED" if marks.turn is None and not has_begun:
            return SagaStatus.STARTED
        case "PENDING" | "ENQUEUED" | "DELAYED":
            return SagaStatus.PENDING if marks.turn is None else SagaStatus.COMPENSATING
        case "SUCCESS":
            return SagaStatus.COMPLETED
        case "ERROR" if isinstance(error, SagaTerminatedError):
            return SagaStatus.TERMINATED
        case "ERROR" if isinstance(error, SagaParkedError):
            return SagaStatus.PARKED
        case "ERROR" if isinstance(error, SagaOutcomeError):
            return SagaStatus.FAILED
        case _:
            return SagaStatus.PARKED


def parked_reason(dbos_status: str, marks: Marks, error: BaseException | str | None) -> str:
    """Why a PARKED saga cannot go on by itself."""
    if isinstance(error, SagaParkedError):
        return error.reason
    if marks.parked is not None:
        return marks.parked
    match dbos_status:
        case "CANCELLED" if marks.turn is not None:
            return (
                "it was cancelled in DBOS while it was being undone, which stopped it there: see "
                "its history for what is undone. DBOS.resume_workflow lets it go on"
            )
        case "CANCELLED":
            return (
                "it was cancelled in DBOS, which stops a workflow where it stands; nothing was "
                "undone. DBOS.resume_workflow lets it go on"
            )
        case "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
            return (
                "DBOS gave it up after too many recoveries, as it stood: see its history. "
                "DBOS.resume_workflow lets it go on"
            )
        case _:
            return f"DBOS ended it with an error that is no outcome of a saga: {error!r}"
