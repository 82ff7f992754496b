"""
The compensation stack, and the decisions of unwinding. Pure.

The stack is ordered by step ID, which a step draws when it is called, never by who finished
first: so it is the same in every replay.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from steps.abc import Compensation

from ._scope import Scope, is_within

_PATCH = "DBOS.patch-"
"""What the name of a row begins with that says which way the code went: it is no step."""

_UNDO = re.compile(r"undo:(\d+):(.*?)(?:#(\d+))?\Z", re.DOTALL)


def undo_name(step_id: int, name: str, again: int = 0) -> str:
    """What DBOS records the undo of a step under; `again` tells later runs of one that failed."""
    return f"undo:{step_id}:{name}#{again}" if again else f"undo:{step_id}:{name}"


def _generation(recorded_name: str) -> int:
    match = _UNDO.match(recorded_name)
    return int(match[3] or 0) if match else 0


def undone_step(recorded_name: str) -> int | None:
    """The step whose undo was recorded under this name; None where it is no undo."""
    match = _UNDO.match(recorded_name)
    return int(match[1]) if match else None


def undone_name(recorded_name: str) -> str | None:
    """That step's name; None where it is no undo."""
    match = _UNDO.match(recorded_name)
    return match[2] if match else None


@dataclass(slots=True)
class Stack:
    """The compensations of a saga's completed steps, each with the scope it was pushed in."""

    _entries: dict[int, tuple[Compensation, Scope | None]] = field(default_factory=dict)

    def push(self, step_id: int, compensation: Compensation, scope: Scope | None = None) -> None:
        """Keep the undo of a completed step."""
        self._entries[step_id] = compensation, scope

    def drop(self, step_id: int) -> None:
        """Forget an undo that is done."""
        del self._entries[step_id]

    def clear(self) -> None:
        """Forget them all: the saga is past its point of no return."""
        self._entries.clear()

    def newest_first(self, within: Scope | None = None) -> list[tuple[int, Compensation]]:
        """What there is to undo, in the order of undoing; all of it, or that of one scope."""
        found = [
            (step_id, compensation)
            for step_id, (compensation, scope) in self._entries.items()
            if within is None or is_within(scope, within)
        ]
        return sorted(found, reverse=True, key=lambda entry: entry[0])

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of a saga's history."""

    step_id: int
    name: str
    failed: bool


def undo_outcomes(rows: Iterable[Recorded]) -> dict[int, Recorded]:
    """The recorded undos, by the step that each undid; of several the newest."""
    outcomes: dict[int, Recorded] = {}
    for row in rows:
        step_id = undone_step(row.name)
        if step_id is not None:
            outcomes[step_id] = row
    return outcomes


def settled_undos(
    rows: Iterable[Recorded], retries: int, resolved: Container[int]
) -> dict[int, Recorded]:
    """
    The recorded undos that stand: those that succeeded, and those that are not to be tried again.

    Args:
        rows: The history.
        retries: How often the saga's failed undos were taken up again.
        resolved: The steps that a person has undone since.
    """
    return {
        step_id: row
        for step_id, row in undo_outcomes(rows).items()
        if not row.failed or (_generation(row.name) >= retries and step_id not in resolved)
    }


def _is_of_body(row: Recorded) -> bool:
    """Whether a row tells of something that the body did."""
    return undone_step(row.name) is None and not row.name.startswith(_PATCH)


def is_stale(turn_at: int, rows: Iterable[Recorded]) -> bool:
    """
    Whether a turn was marked by an execution that had lost the saga to another.

    Attributes, unlike steps, can be written by such an execution. The one that owned the saga
    went on, and recorded a step where the mark says that no step was.
    """
    return any(r.step_id >= turn_at and _is_of_body(r) for r in rows)


def first_not_passed(
    rows: Iterable[Recorded], drawn: Mapping[int, str], passed: Mapping[int, str], end: int
) -> Recorded | None:
    """
    The first recorded step that this replay did not come by; None where all is well.

    Args:
        rows: The history.
        drawn: The IDs that this execution's steps drew, with their names.
        passed: Those of them whose outcome it has got.
        end: The first ID that its body did not draw.
    """
    for row in rows:
        if not _is_of_body(row):
            continue
        missed = row.step_id >= end or (row.step_id in drawn and row.step_id not in passed)
        if missed or passed.get(row.step_id, row.name) != row.name:
            return row
    return None
