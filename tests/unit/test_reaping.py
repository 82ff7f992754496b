"""What the supervisor decides about a saga that DBOS has stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sagas._errors import Failure
from sagas._marks import Marks, Parked, Turn
from sagas._reaping import MOST_CANCELS, Action, Stopped, decide
from sagas._registry import Rules
from sagas._stop import Stop, Why

NOW = 10_000
ASKED = Stop(Why.CANCEL, "no stock", "ann", 5_000)
LATE = Stop(Why.DEADLINE, "ran late", None, 5_000)
DEAD = Stop(Why.DEAD_LETTER, "given up", None, 5_000)
BY_DBOS = Stop(Why.DBOS_CANCEL, "was cancelled in DBOS", None, 5_000)
TIMED = Stop(Why.DBOS_TIMEOUT, "timed out", None, 5_000)
PARKED = Parked("code changed", 4_000)
TURN = Turn(3, Failure(None, None, "E", "m"))

PLAIN, LEAVE, TWICE = Rules(), Rules("leave"), Rules("compensate", 2)
GIVEN_UP = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


def row(dbos_status: str = "CANCELLED", **changes: Any) -> Stopped:
    facts = {f: changes.pop(f) for f in ("began", "running_here", "timed_out") if f in changes}
    blank = Stopped("fulfil", dbos_status, Marks(**changes), True, False, False)
    return replace(blank, **facts)


@pytest.mark.parametrize(
    ("stopped", "rules", "action"),
    [
        (row(), PLAIN, Action.RESUME),
        (row(turn=TURN), PLAIN, Action.RESUME),
        (row(running_here=True), PLAIN, Action.FENCE),
        (row(running_here=True, parked=PARKED), PLAIN, Action.FENCE),
        (row(running_here=True, terminated=ASKED), LEAVE, Action.FENCE),
        (row(terminated=ASKED), PLAIN, Action.NOTHING),
        (row(parked=PARKED), PLAIN, Action.NOTHING),
        (row(never_ran=True), PLAIN, Action.NOTHING),
        (row(began=False), PLAIN, Action.NEVER_RAN),
        (row(began=False), LEAVE, Action.NEVER_RAN),
        (row(began=False), None, Action.NEVER_RAN),
        (row(), None, Action.PARK),
        (row(parked=PARKED), None, Action.NOTHING),
        (row(), LEAVE, Action.TERMINATE),
        (row(timed_out=True), LEAVE, Action.TERMINATE),
        (row(stop=ASKED), LEAVE, Action.RESUME),
        (row(GIVEN_UP), LEAVE, Action.RESUME),
        (row(GIVEN_UP, takeovers=1), TWICE, Action.RESUME),
        (row(GIVEN_UP, takeovers=2), TWICE, Action.PARK),
        (row(stop=DEAD, takeovers=2), TWICE, Action.PARK),
        (row(GIVEN_UP, takeovers=10_000), PLAIN, Action.RESUME),
        (row(takeovers=2), TWICE, Action.RESUME),
        (row(timed_out=True, takeovers=2), TWICE, Action.RESUME),
        (row(takeovers=MOST_CANCELS), TWICE, Action.PARK),
        (row(timed_out=True, takeovers=MOST_CANCELS), TWICE, Action.PARK),
    ],
)
def test_what_is_done(stopped: Stopped, rules: Rules | None, action: Action) -> None:
    """Each kind of stopped saga is treated as its marks and its definition say."""
    assert decide(stopped, rules, NOW).action is action


@pytest.mark.parametrize(
    ("stopped", "why", "reason", "by", "time"),
    [
        (row(), Why.DBOS_CANCEL, "was cancelled in DBOS", None, NOW),
        (row(timed_out=True), Why.DBOS_TIMEOUT, "ran past the timeout", None, NOW),
        (row(GIVEN_UP), Why.DEAD_LETTER, "gave it up", None, NOW),
        (row(GIVEN_UP, stop=ASKED), Why.DEAD_LETTER, "gave it up", None, NOW),
        (row(stop=ASKED), Why.CANCEL, "no stock", "ann", 5_000),
        (row(stop=LATE), Why.DEADLINE, "ran late", None, 5_000),
        (row(stop=DEAD), Why.DEAD_LETTER, "given up", None, 5_000),
        (row(stop=BY_DBOS), Why.DBOS_CANCEL, "was cancelled in DBOS", None, 5_000),
        (row(stop=TIMED), Why.DBOS_TIMEOUT, "timed out", None, 5_000),
    ],
)
def test_why_it_turns_round(
    stopped: Stopped, why: Why, reason: str, by: str | None, time: int
) -> None:
    """The reason is what stopped it first; a request stays what it was."""
    stop = decide(stopped, PLAIN, NOW).stop
    assert stop is not None
    assert (stop.why, stop.by, stop.time) == (why, by, time)
    assert reason in stop.reason


@pytest.mark.parametrize(
    ("stopped", "rules", "reason"),
    [
        (row(), None, "no saga 'fulfil' is registered"),
        (row(GIVEN_UP, takeovers=2), TWICE, "taken up again 2 times"),
    ],
)
def test_what_a_parked_saga_is_told(stopped: Stopped, rules: Rules | None, reason: str) -> None:
    """A saga that is parked says why."""
    assert reason in decide(stopped, rules, NOW).reason
