"""What became of the workers, and what that did to the sagas. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sagas import SagaStatus

from .audit import Check

Statuses = Mapping[str, SagaStatus]
"""The state of each saga that there is, by the order's ID."""

_DOING = {
    SagaStatus.STARTED: "waiting",
    SagaStatus.PENDING: "running",
    SagaStatus.COMPENSATING: "undoing",
}


@dataclass(frozen=True, slots=True)
class Life:
    """One worker, from its start to its end."""

    number: int
    """The first is 1."""
    started_at: datetime
    killed_at: datetime | None
    """None: it came to its end by itself."""
    statuses: Statuses
    """What the database said when it was gone."""

    @property
    def caught(self) -> Mapping[str, str]:
        """What each saga was doing that was in flight when it was killed."""
        return {order: _DOING[s] for order, s in self.statuses.items() if s in _DOING}


def caught(order_id: str, lives: Sequence[Life]) -> list[str]:
    """What an order's saga was doing at each kill that it was in flight at."""
    return [life.caught[order_id] for life in lives if order_id in life.caught]


def check_kills(lives: Sequence[Life]) -> Check:
    """That sagas were killed while running and while undoing: else the rest proves little."""
    counts = Counter(what for life in lives for what in life.caught.values())
    kills = sum(life.killed_at is not None for life in lives)
    problems = tuple(
        f"no saga was killed while {what}" for what in ("running", "undoing") if not counts[what]
    )
    figures = (
        f"{kills} workers killed, when {counts['running']} sagas were running and "
        f"{counts['undoing']} were undoing"
    )
    return Check("kills", figures, problems)
