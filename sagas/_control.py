"""
Control flow that no saga's body may swallow.

These are `BaseException`s. A body that catches them all the same gains nothing: the run remembers
them, raises them again at its next step, and goes by them when the body has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._errors import Failure, NotUndone, StepRef


class TurnRound(BaseException):
    """A replay has come to the point where the saga turned round."""


class Fault(BaseException):
    """
    The machinery failed, not the saga: it is parked, nothing is undone.

    Attributes:
        reason: What happened and what to do.
        step_id: The step of which nobody can say what became of it, where that is why.
        step: Its name.
    """

    def __init__(self, reason: str, step_id: int | None = None, step: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step_id = step_id
        self.step = step


class Interrupted(BaseException):
    """
    This execution cannot go on, through no fault of the saga: the database failed, say.

    It leaves the saga as it stands; the next launch takes it up again.
    """


class Stuck(BaseException):
    """
    An undo of a scope failed for good: the saga is parked where it is.

    Attributes:
        cause: Why the scope was being undone.
        undone: The steps that were undone.
        not_undone: Those whose effect stands.
    """

    def __init__(
        self, cause: Failure, undone: Sequence[StepRef], not_undone: Sequence[NotUndone]
    ) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.undone = tuple(undone)
        self.not_undone = tuple(not_undone)
