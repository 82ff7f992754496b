"""`kill -9` at every point of the life of a saga that is being cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import sample
from tests.support.trial import STOPS, Evidence, Laboratory, Trial, complaints

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

VARIANTS = ("sync", "group")

AROUND = {
    "dbos-cancel": ("cancel", "stop", "resume"),
    "request": ("stop",),
}
"""The points of the cancel itself."""


def points(plan: str) -> list[str]:
    """The points that a saga comes by from its step c on, in which it is cancelled."""
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
    """A cancelled saga that nobody kills keeps every promise, and comes by each of the points."""
    trials = [Trial(variant, plan) for variant in VARIANTS for plan in STOPS]
    pieces = laboratory.run(trials)
    audit(pieces)
    for evidence in pieces:
        assert set(points(evidence.trial.plan)) <= set(evidence.points[0]), evidence.trial


@pytest.mark.parametrize("plan", STOPS)
def test_a_cancelled_saga_that_is_killed_is_undone(laboratory: Laboratory, plan: str) -> None:
    """Killed at any point of being cancelled and undone, a saga ends undone, each undo once."""
    cases = [(variant, point) for variant in VARIANTS for point in points(plan)]
    chosen = sample(cases, 9, offset=2)
    pieces = laboratory.run([Trial(variant, plan, (point,)) for variant, point in chosen])
    audit(pieces)
    assert [e.killed for e in pieces] == [1] * len(chosen)
