"""
Who is dead: a decision about looks at the names that executors hold. Pure.

A name can be free while its executor lives: its session was ended, or the server was restarted.
Then the executor takes its name again within seconds. One that does not is dead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LOOKS = 3
"""How often a name must be seen free, at least."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A name that was free at every look, since the first of these."""

    first: float
    """When it was first seen free."""
    last: float
    """When it was last seen free."""
    looks: int
    """How often it was looked at, from the first to the last time."""

    def is_death(self, patience: float) -> bool:
        """Whether it has lasted for `patience` seconds, by enough looks."""
        return self.looks >= LOOKS and self.last - self.first >= patience


def observe(
    before: Mapping[str, Absence], free: Collection[str], now: float, since: float
) -> dict[str, Absence]:
    """
    The absences after another look.

    Args:
        before: The absences before it.
        free: The names that were free; any other was held, or not looked at.
        now: When that was.
        since: When the session by which it was seen took its own name. What an earlier session
            saw does not count: the server may have been restarted in between.
    """
    after = {}
    for name in free:
        known = before.get(name)
        if known is None or known.first < since:
            after[name] = Absence(now, now, 1)
        else:
            after[name] = Absence(known.first, now, known.looks + 1)
    return after
