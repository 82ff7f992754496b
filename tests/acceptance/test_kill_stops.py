"""`kill -9` at every point of the life of a saga that is being stopped, by a cancel or its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import ALL, sample
from tests.support.trial import STOPS, Evidence, Laboratory, Trial, complaints

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

VARIANTS = ("sync", "group")

AROUND = {
    "dbos-cancel": ("cancel", "stop", "resume"),
    "request": ("stop",),
    "deadline": (),
    "dbos-timeout": ("cancel", "stop", "resume"),
}
"""The points of the stop itself."""

CANCELS = ("dbos-cancel", "request")
TIMES = ("deadline", "dbos-timeout")
"""Plans that take their time, so fewer of them are run in CI."""


def points(plan: str) -> list[str]:
    """The points that a saga comes by from its step c on, in which it is stopped."""
    checkpoints = [f"checkpoint:{n}:{when}" for n in "cd" for when in ("before", "after")]
    undos = [
        f"{what}:{name}:{when}"
        for name in "cba"
        for what, when in (("undo", "begun"), ("undo", "effect"))
    ]
    undo_checkpoints = [
        f"checkpoint:undo:{name}:{when}" for name in "cba" for when in ("before", "after")
    ]
    ends = ["mark:before", "mark:after", "outcome:before", "outcome:after"]
    start = ["step:c:begun", "step:c:effect"]
    around = [f"{what}:{when}" for what in AROUND[plan] for when in ("before", "after")]
    return [*start, *around, *checkpoints, *undos, *undo_checkpoints, *ends]


@pytest.fixture
def laboratory(database: str, tmp_path: Path) -> Laboratory:
    """Where trials run."""
    return Laboratory(database, tmp_path)


def audit(pieces: list[Evidence]) -> None:
    """See that all is well, whatever the trial."""
    wrong = [complaint for evidence in pieces for complaint in complaints(evidence)]
    assert not wrong, "\n".join(wrong)


def test_the_points_are_points(laboratory: Laboratory) -> None:
    """A stopped saga that nobody kills keeps every promise, and comes by each of the points."""
    plans = STOPS if ALL else CANCELS
    trials = [Trial(variant, plan) for variant in VARIANTS for plan in plans]
    pieces = laboratory.run(trials)
    audit(pieces)
    for evidence in pieces:
        assert set(points(evidence.trial.plan)) <= set(evidence.points[0]), evidence.trial


def kill(laboratory: Laboratory, plans: tuple[str, ...], every: int) -> None:
    """Kill sagas of these plans, at each `every`-th of all points in CI."""
    cases = [(variant, plan, p) for plan in plans for variant in VARIANTS for p in points(plan)]
    chosen = sample(cases, every, offset=2)
    pieces = laboratory.run([Trial(variant, plan, (point,)) for variant, plan, point in chosen])
    audit(pieces)
    assert [e.killed for e in pieces] == [1] * len(chosen)


@pytest.mark.parametrize("plan", CANCELS)
def test_a_cancelled_saga_that_is_killed_is_undone(laboratory: Laboratory, plan: str) -> None:
    """Killed at any point of being cancelled and undone, a saga ends undone, each undo once."""
    kill(laboratory, (plan,), 9)


def test_a_saga_that_outlasts_its_time_and_is_killed_is_undone(laboratory: Laboratory) -> None:
    """The same by its deadline, or its timeout in DBOS, whenever the next process begins."""
    kill(laboratory, TIMES, 16)
