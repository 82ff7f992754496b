"""
Marks: what is written about a saga into the attributes of its workflow. Pure.

One top-level key each, as DBOS merges attributes by their top level only. A mark that no longer
holds is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._errors import Failure
from ._stop import Stop, Why

PREFIX = "sagas."
TURN = PREFIX + "turn"
PARKED = PREFIX + "parked"
STOP = PREFIX + "stop"
REQUEST = PREFIX + "request"
"""True where a running saga has something to notice; a key of its own to search for."""
TERMINATED = PREFIX + "terminated"
NEVER_RAN = PREFIX + "never_ran"
RETRY = PREFIX + "retry"
RESOLVED = PREFIX + "resolved."
"""And the ID of the step."""
STRUGGLING = PREFIX + "struggling"
TIMEOUT = PREFIX + "timeout"
PARKED_MS = PREFIX + "parked_ms"
TAKEOVERS = PREFIX + "takeovers"
FORGIVEN = PREFIX + "forgiven"
"""How many of them do not count any more, as a person has had the saga go on since."""
AUDIT = PREFIX + "audit."
"""And the time and a random part."""
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


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Turn:
    """The point where a saga turned round, and why."""

    at: int
    """A step ID that no step has: the undos have greater ones."""
    cause: Failure
    """Why, its texts made fit by `json_text`."""
    time: int | None = None
    """When, in milliseconds since the epoch."""
    stop: Stop | None = None
    """What stopped the saga from outside; None where it failed by itself."""

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
                "stop": None if self.stop is None else self.stop.as_json(),
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
        return cls(mark["at"], cause, _int(mark.get("time")), Stop.parse(mark.get("stop")))


@dataclass(frozen=True, slots=True)
class Parked:
    """Why a saga was parked."""

    reason: str
    time: int | None = None
    """When, in milliseconds since the epoch."""
    step_id: int | None = None
    """The step whose outcome is unknown, where that is why."""
    step: str | None = None
    """Its name."""

    def attributes(self) -> dict[str, Any]:
        """The mark, as it is stored."""
        return {
            PARKED: {
                "reason": json_text(self.reason),
                "time": self.time,
                "step_id": self.step_id,
                "step": self.step,
            }
        }

    @classmethod
    def parse(cls, mark: Any) -> Parked | None:
        """The mark as it was stored; None where there is none."""
        if isinstance(mark, str):
            return cls(mark)
        if not isinstance(mark, Mapping) or "reason" not in mark:
            return None
        return cls(
            str(mark["reason"]),
            _int(mark.get("time")),
            _int(mark.get("step_id")),
            _text(mark.get("step")),
        )


@dataclass(frozen=True, slots=True)
class Struggling:
    """An undo, or a probe, that fails again and again, and is tried again."""

    step_id: int
    name: str
    attempts: int
    error: str

    def attributes(self) -> dict[str, Any]:
        """The mark, as it is stored."""
        return {
            STRUGGLING: {
                "step_id": self.step_id,
                "name": self.name,
                "attempts": self.attempts,
                "error": json_text(self.error),
            }
        }

    @classmethod
    def parse(cls, mark: Any) -> Struggling | None:
        """The mark as it was stored; None where there is none."""
        if not isinstance(mark, Mapping) or not isinstance(mark.get("step_id"), int):
            return None
        attempts = _int(mark.get("attempts")) or 0
        return cls(mark["step_id"], str(mark.get("name")), attempts, str(mark.get("error")))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that a person, or a program, did to a saga from outside."""

    verb: str
    """What: cancel, retry, resolve, terminate."""
    time: int
    """When, in milliseconds since the epoch."""
    by: str | None = None
    reason: str | None = None

    def attributes(self, salt: str) -> dict[str, Any]:
        """The mark, as it is stored; `salt` tells two of one moment apart."""
        by = None if self.by is None else json_text(self.by)
        reason = None if self.reason is None else json_text(self.reason)
        entry = {"verb": self.verb, "time": self.time, "by": by, "reason": reason}
        return {f"{AUDIT}{self.time:015d}.{salt}": entry}

    @classmethod
    def parse(cls, mark: Any) -> AuditEntry | None:
        """The mark as it was stored; None where there is none."""
        if not isinstance(mark, Mapping) or not isinstance(mark.get("time"), int):
            return None
        return cls(
            str(mark.get("verb")), mark["time"], _text(mark.get("by")), _text(mark.get("reason"))
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's word that the effect of a step is undone."""

    note: str
    by: str | None = None

    @classmethod
    def parse(cls, mark: Any) -> Resolution | None:
        """The mark as it was stored; None where there is none."""
        if not isinstance(mark, Mapping):
            return None
        return cls(str(mark.get("note", "")), _text(mark.get("by")))


@dataclass(frozen=True, slots=True)
class Marks:
    """All marks of one saga."""

    turn: Turn | None = None
    """Where it turned round."""
    parked: Parked | None = None
    """Why it was parked."""
    stop: Stop | None = None
    """A request to turn round."""
    terminated: Stop | None = None
    """That it is to stop where it is, nothing undone."""
    never_ran: bool = False
    """That it was cancelled before it began."""
    retry: int = 0
    """How often its failed undos were taken up again."""
    resolved: Mapping[int, Resolution] = field(default_factory=dict)
    """Steps that a person has undone, by ID."""
    struggling: Struggling | None = None
    """The undo that fails again and again."""
    timeout: float | None = None
    """The time limit it was started with, in seconds."""
    parked_ms: int = 0
    """How long it was parked, which does not count for its deadline."""
    takeovers: int = 0
    """How often it was resumed by the supervisor."""
    forgiven: int = 0
    """How many of these do not count."""
    audit: tuple[AuditEntry, ...] = ()
    """What was done to it from outside, oldest first."""

    def is_worn_out(self, most: int | None) -> bool:
        """Whether it was resumed as often as it may be."""
        return most is not None and self.takeovers - self.forgiven >= most

    @classmethod
    def parse(cls, attributes: Any) -> Marks:
        """The marks among a workflow's attributes."""
        if not isinstance(attributes, Mapping):
            return cls()
        timeout = attributes.get(TIMEOUT)
        resolved = {
            int(key.removeprefix(RESOLVED)): resolution
            for key, value in attributes.items()
            if key.startswith(RESOLVED)
            and key.removeprefix(RESOLVED).isdigit()
            and (resolution := Resolution.parse(value)) is not None
        }
        audit = [
            entry
            for key in sorted(k for k in attributes if k.startswith(AUDIT))
            if (entry := AuditEntry.parse(attributes[key])) is not None
        ]
        return cls(
            turn=Turn.parse(attributes.get(TURN)),
            parked=Parked.parse(attributes.get(PARKED)),
            stop=Stop.parse(attributes.get(STOP)),
            terminated=Stop.parse(attributes.get(TERMINATED)),
            never_ran=attributes.get(NEVER_RAN) is True,
            retry=_int(attributes.get(RETRY)) or 0,
            resolved=resolved,
            struggling=Struggling.parse(attributes.get(STRUGGLING)),
            timeout=timeout if isinstance(timeout, int | float) else None,
            parked_ms=_int(attributes.get(PARKED_MS)) or 0,
            takeovers=_int(attributes.get(TAKEOVERS)) or 0,
            forgiven=_int(attributes.get(FORGIVEN)) or 0,
            audit=tuple(audit),
        )


def stop_attributes(stop: Stop) -> dict[str, Any]:
    """The mark of a request to turn round, as it is stored."""
    return {STOP: stop.as_json(), REQUEST: True}


def terminated_attributes(reason: str, by: str | None, time: int) -> dict[str, Any]:
    """The mark of a saga that is to stop where it is, as it is stored."""
    return {TERMINATED: Stop(Why.CANCEL, json_text(reason), by, time).as_json(), REQUEST: True}


def resolved_attributes(step_id: int, note: str, by: str | None, time: int) -> dict[str, Any]:
    """The mark of a step that a person has undone, as it is stored."""
    return {
        f"{RESOLVED}{step_id}": {"note": json_text(note), "by": by, "time": time},
        REQUEST: True,
    }


def of_user(attributes: Any) -> dict[str, Any]:
    """The attributes that are no marks."""
    if not isinstance(attributes, Mapping):
        return {}
    return {k: v for k, v in attributes.items() if not k.startswith(PREFIX)}
