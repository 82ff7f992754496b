"""
Marks: what a saga writes about itself into the attributes of its workflow. Pure.

One top-level key each, as DBOS merges attributes by their top level only. A mark that no longer
holds is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import Failure

PREFIX = "sagas."
TURN = PREFIX + "turn"
PARKED = PREFIX + "parked"
LONGEST_TEXT = 8000


def json_text(text: str) -> str:
    """`text` as PostgreSQL's JSON can hold it, its middle left out where it is very long."""
    clean = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if len(clean) <= LONGEST_TEXT:
        return clean
    half = LONGEST_TEXT // 2
    return f"{clean[:half]}\n[...]\n{clean[-half:]}"


def is_storable_text(text: str) -> bool:
    """Whether every database can store `text`: no NUL, no lone half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


@dataclass(frozen=True, slots=True)
class Turn:
    """The point where a saga turned round, and why."""

    at: int
    """A step ID that no step has: the undos have greater ones."""
    cause: Failure
    """Why, its texts made fit by `json_text`."""
    time: int | None = None
    """When, in milliseconds since the epoch."""

    def attributes(self) -> dict[str, Any]:
        """The mark, as it is stored."""
        cause = self.cause
        return {
            TURN: {
                "at": self.at,
                "time": self.time,
                "step": cause.step,
                "step_id": cause.step_id,
                "error_type": cause.error_type,
                "message": cause.message,
                "traceback": cause.traceback,
            }
        }

    @classmethod
    def parse(cls, mark: Any) -> Turn | None:
        """The mark as it was stored; None where there is none."""
        if not isinstance(mark, Mapping) or not isinstance(mark.get("at"), int):
            return None
        cause = Failure(
            step=mark.get("step"),
            step_id=mark.get("step_id"),
            error_type=str(mark.get("error_type")),
            message=str(mark.get("message")),
            traceback=str(mark.get("traceback", "")),
        )
        time = mark.get("time")
        return cls(mark["at"], cause, time if isinstance(time, int) else None)


@dataclass(frozen=True, slots=True)
class Marks:
    """All marks of one saga."""

    turn: Turn | None = None
    """Where it turned round."""
    parked: str | None = None
    """Why it was parked."""

    @classmethod
    def parse(cls, attributes: Any) -> Marks:
        """The marks among a workflow's attributes."""
        if not isinstance(attributes, Mapping):
            return cls()
        parked = attributes.get(PARKED)
        return cls(
            turn=Turn.parse(attributes.get(TURN)),
            parked=parked if isinstance(parked, str) else None,
        )


def of_user(attributes: Any) -> dict[str, Any]:
    """The attributes that are no marks."""
    if not isinstance(attributes, Mapping):
        return {}
    return {k: v for k, v in attributes.items() if not k.startswith(PREFIX)}
