"""
Control flow that no saga's body may swallow.

These are `BaseException`s. A body that catches them all the same gains nothing: the run remembers
them, raises them again at its next step, and goes by them when the body has ended.
"""

from __future__ import annotations


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
