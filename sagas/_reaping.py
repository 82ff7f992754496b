"""What to do about a saga that DBOS has stopped: cancelled, or given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ._marks import Marks
from ._registry import Rules
from ._stop import Stop, Why

MOST_CANCELS = 1000
"""How often a saga is resumed that is cancelled again each time, by its DBOS timeout, say."""


class Action(Enum):
    """What to do about it."""

    NOTHING = auto()
    """It has come to its end."""
    FENCE = auto()
    """An execution of it is still going on here: have it end first."""
    NEVER_RAN = auto()
    """It was cancelled before it began."""
    TERMINATE = auto()
    """Leave it as it stands, as its definition says."""
    PARK = auto()
    """It cannot go on by itself."""
    RESUME = auto()
    """Have it run again, to turn round."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A row that DBOS calls CANCELLED or MAX_RECOVERY_ATTEMPTS_EXCEEDED."""

    name: str
    dbos_status: str
    marks: Marks
    began: bool
    """Whether it may have begun: it was taken from its queue, or has steps."""
    running_here: bool
    """Whether an execution of it is going on in this process."""
    timed_out: bool
    """Whether the timeout passed that it was started with in DBOS."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action, and what to write down before it."""

    action: Action
    stop: Stop | None = None
    reason: str = ""


def decide(row: Stopped, rules: Rules | None, now: int) -> Decision:
    """
    What to do about a stopped saga.

    Args:
        row: What is known of it.
        rules: Of its definition; None where it is not defined here.
        now: The time, in milliseconds since the epoch.
    """
    marks = row.marks
    if row.running_here:
        return Decision(Action.FENCE)
    if marks.terminated is not None or marks.parked is not None or marks.never_ran:
        return Decision(Action.NOTHING)
    if not row.began:
        return Decision(Action.NEVER_RAN)
    if rules is None:
        return Decision(
            Action.PARK,
            reason=not_registered(row.name),
        )
    stop = _why(row, now)
    if rules.on_terminate == "leave" and stop.why is not Why.DEAD_LETTER and marks.stop is None:
        return Decision(Action.TERMINATE, stop)
    asked = marks.stop
    gave_up = row.dbos_status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    if gave_up and asked is not None and asked.why is Why.DEAD_LETTER:
        return Decision(
            Action.PARK,
            reason="its process died again and again, also when it was to turn round. Find out "
            "what brings it down, and `retry`",
        )
    most = rules.max_recovery_attempts
    if stop.why is not Why.DEAD_LETTER and most is not None:
        most = max(most, MOST_CANCELS)  # a cancel brings no process down
    if marks.is_worn_out(most):
        return Decision(
            Action.PARK,
            reason=f"it was taken up again {marks.takeovers} times, and each time it was stopped "
            f"before its end. Find out what stops it, and `retry`",
        )
    return Decision(Action.RESUME, stop)


def not_registered(name: str) -> str:
    """Why a saga is parked that this process does not know."""
    return (
        f"no saga {name!r} is registered in this process: it was renamed or removed, or its "
        f"module is not imported. Bring it back and `retry`"
    )


def _why(row: Stopped, now: int) -> Stop:
    asked = row.marks.stop
    if row.dbos_status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        reason = "its process died again and again, and DBOS gave it up"
        return Stop(Why.DEAD_LETTER, reason, None, now)
    if asked is not None:
        return asked  # it is there when the next execution begins, so it is obeyed
    if row.timed_out:
        return Stop(Why.DBOS_TIMEOUT, "ran past the timeout of its DBOS workflow", None, now)
    return Stop(Why.DBOS_CANCEL, "was cancelled in DBOS", None, now)
