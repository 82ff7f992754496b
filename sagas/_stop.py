"""What stops a saga from outside: a cancel request, a deadline, DBOS. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Why(StrEnum):
    """Who stopped a saga."""

    CANCEL = "cancel"
    """Someone asked for it."""
    DEADLINE = "deadline"
    """Its deadline passed."""
    DBOS_CANCEL = "dbos-cancel"
    """DBOS cancelled its workflow."""
    DBOS_TIMEOUT = "dbos-timeout"
    """DBOS cancelled its workflow, as the timeout that it was started with had passed."""
    DEAD_LETTER = "dead-letter"
    """DBOS, or the supervisor, gave it up after too many recoveries."""

    SCOPE = "scope"
    """The time limit of a scope passed; the saga itself goes on."""

    @property
    def is_firm(self) -> bool:
        """Whether the saga turns round even when its body has come to its end: it was stopped."""
        return self in (Why.DBOS_CANCEL, Why.DBOS_TIMEOUT, Why.DEAD_LETTER)

    @property
    def is_timeout(self) -> bool:
        """Whether it was a clock."""
        return self in (Why.DEADLINE, Why.DBOS_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Stop:
    """A request to turn round: no further step begins, and what is done is undone."""

    why: Why
    reason: str
    by: str | None = None
    time: int | None = None
    """When it was made, in milliseconds since the epoch."""
    limit: float | None = None
    """The time limit that passed, in seconds; of a scope."""

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        facts = {"why": self.why.value, "reason": self.reason, "by": self.by, "time": self.time}
        return facts if self.limit is None else {**facts, "limit": self.limit}

    @classmethod
    def parse(cls, mark: Any) -> Stop | None:
        """The request as it was stored; None where there is none."""
        if not isinstance(mark, Mapping):
            return None
        try:
            why = Why(str(mark.get("why")))
        except ValueError:
            why = Why.CANCEL  # of a later version, say: to stop is what it asks for
        by, time, limit = mark.get("by"), mark.get("time"), mark.get("limit")
        return cls(
            why,
            str(mark.get("reason", "")),
            by if isinstance(by, str) else None,
            time if isinstance(time, int) else None,
            limit if isinstance(limit, int | float) else None,
        )

    @property
    def text(self) -> str:
        """Why, in words."""
        who = f" by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        match self.why:
            case Why.CANCEL:
                return f"cancelled{who}{why}"
            case Why.DEADLINE:
                return self.reason or "its deadline passed"
            case _:
                return self.reason
