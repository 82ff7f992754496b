"""
The errors of sagas.

    SagaError                       catch this to catch all of these
      SagaDefinitionError           the code is wrong: raised at import
      SagaOutcomeError              the saga ended without a result: .saga_id .failure .undone
        SagaFailedError             a step failed; everything was undone
          SagaCancelledError        ... because someone asked (.reason)
          SagaTimeoutError          ... because its deadline passed
        SagaParkedError             cannot go on by itself: needs a person (.reason)
          CompensationFailedError   ... because an undo failed for good (.not_undone)
        SagaTerminatedError         stopped on purpose, nothing undone
      SagaNotFoundError             no saga has this ID
      SagaConflictError             this ID belongs to another saga or other arguments
      PivotPassedError              it is past the point of no return
      SagaUsageError                the library is called in a wrong way or place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steps._errors import PlainDataError


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a saga turned round, or why an undo failed, in plain data."""

    step: str | None
    """The step that failed; None where the saga's own body did."""
    step_id: int | None
    """Its ID."""
    error_type: str
    """Qualified name of the error's class."""
    message: str
    """The error's text."""
    traceback: str = ""
    """Its formatted traceback; empty where there is none."""

    def __str__(self) -> str:
        place = f"step {self.step_id} {self.step!r}" if self.step else "the saga's body"
        return f"{place} failed with {self.error_type}: {self.message}"


@dataclass(frozen=True, slots=True)
class StepRef:
    """One step of one saga."""

    step_id: int
    name: str

    def __str__(self) -> str:
        return f"{self.step_id}:{self.name}"


@dataclass(frozen=True, slots=True)
class NotUndone:
    """A completed step whose effect still stands."""

    step_id: int
    name: str
    failure: Failure | None
    """Why its undo failed; None where it was not tried, as an earlier one had failed."""

    def __str__(self) -> str:
        why = "not tried" if self.failure is None else self.failure.error_type
        return f"{self.step_id}:{self.name} ({why})"


class SagaError(PlainDataError):
    """Base of every error of this package."""


class SagaDefinitionError(SagaError):
    """The code of a saga is wrong. Raised where the decorator stands, never at run time."""


class SagaOutcomeError(SagaError):
    """
    A saga ended without a result.

    Attributes:
        saga_id: Which one.
        failure: Why, in plain data; None where nothing failed.
        undone: The steps that were undone, in the order of undoing.
    """

    def __init__(
        self,
        message: str,
        *,
        saga_id: str,
        failure: Failure | None = None,
        undone: Sequence[StepRef] = (),
    ) -> None:
        super().__init__(message)
        self.saga_id = saga_id
        self.failure = failure
        self.undone: tuple[StepRef, ...] = tuple(undone)

    @property
    def data(self) -> dict[str, Any]:
        """The facts as JSON: DBOS keeps these where a saga was started in portable JSON."""
        failure = self.failure
        return {
            "saga_id": self.saga_id,
            "failure": None
            if failure is None
            else {
                "step": failure.step,
                "step_id": failure.step_id,
                "error_type": failure.error_type,
                "message": failure.message,
            },
            "undone": [[r.step_id, r.name] for r in self.undone],
            "reason": getattr(self, "reason", None),
        }


class SagaFailedError(SagaOutcomeError):
    """A step, or the body, failed; every completed step that has an undo was undone."""


class SagaCancelledError(SagaFailedError):
    """
    The saga was cancelled and undone.

    Attributes:
        reason: What the one who cancelled it said.
    """

    def __init__(self, message: str, *, reason: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.reason = reason


class SagaTimeoutError(SagaFailedError):
    """The saga's deadline passed; it was undone."""


class SagaParkedError(SagaOutcomeError):
    """
    The saga cannot go on by itself and waits for a person. Nothing of it is lost.

    Attributes:
        reason: What is in its way.
    """

    def __init__(self, message: str, *, reason: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.reason = reason


class CompensationFailedError(SagaParkedError):
    """
    An undo failed for good, so effects are left standing.

    Attributes:
        failure: Why the saga was being undone.
        not_undone: The steps whose effect stands, in the order in which they were to be undone.
    """

    def __init__(self, message: str, *, not_undone: Sequence[NotUndone] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.not_undone: tuple[NotUndone, ...] = tuple(not_undone)

    @property
    def data(self) -> dict[str, Any]:
        """The facts as JSON."""
        left = [[n.step_id, n.name, n.failure and n.failure.error_type] for n in self.not_undone]
        return {**super().data, "not_undone": left}


class SagaTerminatedError(SagaOutcomeError):
    """The saga was stopped on purpose; nothing of it was undone."""


class SagaNotFoundError(SagaError):
    """No saga has this ID."""


class SagaConflictError(SagaError):
    """This saga ID is in use: by another saga, or by the same one with other arguments."""


class PivotPassedError(SagaError):
    """The saga has passed its point of no return and can only go forward."""


class SagaUsageError(SagaError):
    """The library was called in a wrong way, or where it cannot be."""
