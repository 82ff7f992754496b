"""
Outcomes that DBOS refused to record, kept for the execution that comes next.

When DBOS cancels a workflow in the middle of a step, the step's body goes on to its end, and then
DBOS refuses its checkpoint. In this process its outcome is known all the same. The execution that
takes the saga up again records it, so that the step is neither run a second time nor in doubt.
After a death of the process they are gone, and the step is settled.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MOST = 10_000
"""Outcomes that are kept; beyond that the oldest are forgotten."""


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


_kept: OrderedDict[tuple[str, int, str], Kept] = OrderedDict()
_lock = threading.Lock()


def keep(saga_id: str, step_id: int, name: str, outcome: Kept) -> None:
    """Keep what became of a step."""
    with _lock:
        _kept[saga_id, step_id, name] = outcome
        while len(_kept) > MOST:
            _kept.popitem(last=False)


def take(saga_id: str, step_id: int, name: str) -> Kept | None:
    """What became of a step whose checkpoint was refused; told once."""
    if not _kept:
        return None
    with _lock:
        return _kept.pop((saga_id, step_id, name), None)


def forget_all() -> None:
    """The process leaves its database."""
    with _lock:
        _kept.clear()
