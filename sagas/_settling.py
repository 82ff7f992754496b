"""
What to do about a step whose outcome is not known. Pure.

A step is in doubt when an earlier execution may have begun it and nothing says how it ended: the
process died in it, or DBOS refused its checkpoint. It becomes unknown when its own attempts end
in a way that says nothing about its effect: it ran out of time, or it said so itself.
"""

from __future__ import annotations

from enum import Enum, auto

from steps._errors import (
    NonRetryableError,
    OutcomeUnknownError,
    StepFailedError,
    StepTimeoutError,
)


class Move(Enum):
    """What to do with a step that has no checkpoint."""

    RUN = auto()
    """Run its body, under its key."""
    ASK_THEN_RUN = auto()
    """Ask its probe; run its body if that says it is not done."""
    SETTLE = auto()
    """Run its body whatever stops the saga, before or meanwhile: so it is known what to undo."""
    REFUSE = auto()
    """Do not begin it."""
    REFUSE_BEGUN = auto()
    """Do not run it, but undo it: it may have taken effect."""
    ASK_THEN_REFUSE = auto()
    """Ask its probe; it is not done if that says so."""
    PARK = auto()
    """Nobody can say what became of it."""


def first_move(
    *,
    in_doubt: bool,
    stopping: bool,
    dead_letter: bool,
    undoable: bool,
    has_probe: bool,
    attempted: bool,
) -> Move:
    """
    What to do with a step that is called and has no checkpoint.

    Args:
        in_doubt: Whether an earlier execution may have begun it.
        stopping: Whether something has stopped the saga.
        dead_letter: Whether it is one that killed its process again and again.
        undoable: Whether it has an undo.
        has_probe: Whether it can be asked.
        attempted: Whether its undo finds out itself what there is to undo.
    """
    if not in_doubt:
        return Move.REFUSE if stopping else Move.RUN
    if has_probe:
        return Move.ASK_THEN_REFUSE if stopping else Move.ASK_THEN_RUN
    if undoable and not attempted:
        return Move.PARK if stopping and dead_letter else Move.SETTLE
    if not stopping:
        return Move.RUN
    return Move.REFUSE_BEGUN if undoable else Move.REFUSE


class Verdict(Enum):
    """What the failure of a step's attempts means."""

    FAILED = auto()
    """It counts as not done, or its undo finds out."""
    ASK = auto()
    """Its probe is to be asked."""
    PARK = auto()
    """Nobody can say what became of it."""


def says_nothing(error: BaseException | None) -> bool:
    """Whether an attempt that ended so may have taken effect."""
    return isinstance(error, StepTimeoutError | OutcomeUnknownError)


def is_unsure(error: BaseException | None) -> bool:
    """Whether an attempt that ended so said itself that it may have taken effect."""
    return isinstance(error, OutcomeUnknownError)


def is_definite(error: BaseException | None) -> bool:
    """Whether an attempt that ended so has surely not taken effect, nor has any before it."""
    return isinstance(error, NonRetryableError | StepFailedError)


def after_failure(
    last: BaseException | None,
    *,
    any_unknown: bool,
    any_unsure: bool,
    settling: bool,
    has_probe: bool,
    attempted: bool,
) -> Verdict:
    """
    What it means that no attempt of a step succeeded.

    Args:
        last: What the last attempt raised; None where there was none.
        any_unknown: Whether one of the attempts ended in a way that says nothing of its effect.
        any_unsure: Whether one of them said so itself.
        settling: Whether it ran only to learn what an earlier execution had done.
        has_probe: Whether it can be asked.
        attempted: Whether its undo finds out itself what there is to undo.
    """
    if last is None or is_definite(last):
        return Verdict.FAILED
    if has_probe and (any_unknown or settling):
        return Verdict.ASK
    if attempted:
        return Verdict.FAILED
    return Verdict.PARK if settling or any_unsure else Verdict.FAILED
