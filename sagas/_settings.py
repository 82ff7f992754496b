"""How the library looks after running sagas: times and counts, set at launch."""

from __future__ import annotations

from dataclasses import dataclass

from steps._policy import Seconds, seconds
from steps._timeout import GRACE

from ._errors import SagaUsageError


def _checked(value: Seconds, what: str, *, zero: bool = False) -> float:
    return seconds(value, what, zero=zero, error=SagaUsageError)


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """
    How the sagas of a process are supervised; see `launch`.

    Args:
        interval: Seconds between two looks at the database, which find requests to cancel and
            sagas that DBOS has stopped. A request made in the same process is seen at once.
        grace: Seconds that a body may go on after its time limit before its saga goes on without
            it: to another attempt, to its probe, to unwinding.
        attention_after: Failed attempts of one undo after which its saga is reported as needing
            attention, though it goes on trying.
        failover: Seconds for which another process must have been gone before its sagas are taken
            over (on PostgreSQL); None: never.

    Raises:
        SagaUsageError: A value makes no sense.
    """

    interval: Seconds = 0.5
    grace: Seconds = GRACE
    attention_after: int = 5
    failover: Seconds | None = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", _checked(self.interval, "interval"))
        object.__setattr__(self, "grace", _checked(self.grace, "grace", zero=True))
        if self.failover is not None:
            object.__setattr__(self, "failover", _checked(self.failover, "failover"))
        after = self.attention_after
        if isinstance(after, bool) or not isinstance(after, int) or after < 1:
            raise SagaUsageError(
                f"attention_after must be a whole number of 1 or more, not {after!r}."
            )


_current = Supervision()


def interval() -> float:
    """Seconds between two looks."""
    return seconds(_current.interval, "interval")


def grace() -> float:
    """Seconds that a body may go on after its limit."""
    return seconds(_current.grace, "grace", zero=True)


def attention_after() -> int:
    """Failed attempts of an undo after which somebody is told."""
    return _current.attention_after


def failover() -> float | None:
    """Seconds after which another process counts as gone; None: never."""
    return None if _current.failover is None else seconds(_current.failover, "failover")


def use(supervision: Supervision | None) -> None:
    """Set it; None: the defaults."""
    global _current
    _current = supervision or Supervision()
