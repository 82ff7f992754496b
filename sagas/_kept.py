"""
What an execution that lost its saga knew, kept for the one that comes next.

When DBOS cancels a workflow in the middle of a step, the step's body goes on to its end, and then
DBOS refuses its checkpoint. In this process its outcome is known all the same. The execution that
takes the saga up again records it, so that the step is neither run a second time nor in doubt.
Nor is a step in doubt that the execution before had not begun. After a death of the process all
that is gone, and the step is settled; so it is where another execution came between, which may
have begun it once more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MOST = 10_000
"""Outcomes that are kept; beyond that the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Age:
    """How often a saga had been taken up when an execution of it began."""

    takeovers: int = 0
    by_hand: tuple[int, int] = (0, 0)
    """Changed by each `retry`."""

    def follows(self, before: Age) -> bool:
        """Whether no execution can have come between."""
        return self.by_hand == before.by_hand and self.takeovers <= before.takeovers + 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What a step's function returned or raised."""

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        """Return or raise it."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(slots=True)
class Left:
    """What an execution left behind that ended here without its saga."""

    begun: frozenset[int]
    """The steps that may have taken effect, and whose outcome is neither recorded nor kept."""
    takeovers: int | None = None
    """That of the execution which may go by it; None: none may, as others can have come first."""


_left: OrderedDict[str, Left] = OrderedDict()
_kept: OrderedDict[tuple[str, int, str], tuple[Age, Kept]] = OrderedDict()
_lock = threading.Lock()


def keep(saga_id: str, step_id: int, name: str, outcome: Kept, age: Age) -> None:
    """Keep what became of a step in an execution of this age."""
    with _lock:
        _kept[saga_id, step_id, name] = age, outcome
        while len(_kept) > MOST:
            _kept.popitem(last=False)


def take(saga_id: str, step_id: int, name: str, age: Age) -> Kept | None:
    """What became of a step whose checkpoint was refused; told once, to the next execution."""
    if not _kept:
        return None
    with _lock:
        found = _kept.pop((saga_id, step_id, name), None)
    return None if found is None or not age.follows(found[0]) else found[1]


def leave(saga_id: str, begun: frozenset[int]) -> None:
    """An execution has ended that knew what it and all before it had begun."""
    with _lock:
        _left[saga_id] = Left(begun)
        while len(_left) > MOST:
            _left.popitem(last=False)


def hand_over(saga_id: str, takeovers: int) -> None:
    """The saga is resumed for so many times now, and nobody has run it since it was left here."""
    with _lock:
        if (left := _left.get(saga_id)) is not None:
            left.takeovers = takeovers


def inherit(saga_id: str, takeovers: int) -> frozenset[int] | None:
    """The steps that may have been begun; None: nobody knows. Told once."""
    with _lock:
        left = _left.pop(saga_id, None)
    return None if left is None or left.takeovers != takeovers else left.begun


def forget_all() -> None:
    """The process leaves its database."""
    with _lock:
        _kept.clear()
        _left.clear()
