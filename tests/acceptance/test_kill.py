"""`kill -9` at every point of a saga's life; the program is started again and must finish it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from tests.support.chaos import ALL, sample
from tests.support.trial import Evidence, Laboratory, Trial, complaints

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

VARIANTS = ("sync", "async", "group")
PLANS = ("complete", "fail", "stubborn", "vanish")


def points(plan: str) -> list[str]:
    """Every point that a saga of this plan comes by, in order."""
    return list(_points(plan))


def _points(plan: str) -> Iterator[str]:
    fails = plan in ("fail", "stubborn")
    yield from ("row:before", "row:after")
    for name in "abcd":
        yield f"step:{name}:begun"
        if not (fails and name == "d"):
            yield f"step:{name}:effect"
        yield from (f"checkpoint:{name}:before", f"checkpoint:{name}:after")
    if plan != "complete":
        yield from ("mark:before", "mark:after")
        for name in "cba" if fails else "dcba":
            yield from (f"undo:{name}:begun", f"undo:{name}:effect")
            yield from (f"checkpoint:undo:{name}:before", f"checkpoint:undo:{name}:after")
    yield from ("outcome:before", "outcome:after")


@pytest.fixture
def laboratory(database: str, tmp_path: Path) -> Laboratory:
    """Where trials run."""
    return Laboratory(database, tmp_path)


def audit(pieces: list[Evidence]) -> None:
    """See that all is well, whatever the trial."""
    wrong = [complaint for evidence in pieces for complaint in complaints(evidence)]
    assert not wrong, "\n".join(wrong)


def test_the_points_are_all_the_points(laboratory: Laboratory) -> None:
    """The list of points at which sagas are killed here leaves none of them out."""
    trials = [Trial(variant, plan) for variant in VARIANTS for plan in PLANS]
    for evidence in laboratory.run(trials):
        assert complaints(evidence) == []
        [seen] = evidence.points
        in_order = list(dict.fromkeys(seen))
        if evidence.trial.variant == "group":  # b and c: whichever is first
            assert sorted(in_order) == sorted(points(evidence.trial.plan))
        else:
            assert in_order == points(evidence.trial.plan)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saga_that_is_killed_ends_as_if_it_had_not_been(
    laboratory: Laboratory, variant: str
) -> None:
    """Killed at any point and started again, a saga ends all done or all undone, in order."""
    cases = [(plan, point) for plan in PLANS for point in points(plan)]
    chosen = sample(cases, 13, offset=VARIANTS.index(variant) * 4)
    pieces = laboratory.run([Trial(variant, plan, (point,)) for plan, point in chosen])
    audit(pieces)
    assert [e.killed for e in pieces] == [1] * len(chosen)


def comes_by_again(first: str, second: str, plan: str) -> bool:
    """Whether a saga that was killed at one point comes by another when it goes on."""
    order = points(plan)
    if order.index(second) > order.index(first):
        return True
    return second == first and not first.endswith(":after")


@pytest.mark.parametrize("variant", ["sync", "group"])
def test_a_saga_that_is_killed_twice_ends_as_if_it_had_not_been(
    laboratory: Laboratory, variant: str
) -> None:
    """Killed again while it is recovered, at any later point, a saga keeps every promise."""
    pairs = list(combinations_with_replacement(points("fail"), 2))
    chosen = sample(pairs, 89, offset=17 if variant == "sync" else 40)
    pieces = laboratory.run([Trial(variant, "fail", pair) for pair in chosen])
    audit(pieces)
    for evidence, (first, second) in zip(pieces, chosen, strict=True):
        again = comes_by_again(first, second, "fail")
        if variant == "sync":  # b and c of a group come in either order
            assert evidence.killed == 1 + again, evidence.trial


def test_however_a_saga_was_started_it_is_undone_after_kills(laboratory: Laboratory) -> None:
    """A saga that came by plain DBOS, a queue or a client resumes its unwinding all the same."""
    ways = ("start_workflow", "options(queue)", "enqueue_workflow", "client")
    schedules = [
        ("step:c:effect", "mark:after", "checkpoint:undo:b:after"),
        ("undo:c:effect", "undo:b:begun"),
        ("mark:after", "outcome:before"),
    ]
    cases = [(way, variant) for way in ways for variant in ("sync", "group")]
    trials = [
        Trial(variant, "fail", schedules[i % 3], via)
        for i, (via, variant) in enumerate(cases * 3 if ALL else cases)
    ]
    pieces = laboratory.run(trials)
    audit(pieces)
    assert [e.killed for e in pieces] == [len(t.kills) for t in trials]


def test_a_real_program_recovers_twice_while_it_unwinds(database: str, tmp_path: Path) -> None:
    """A program that shares nothing with the one before it, killed twice in undos, ends undone."""
    laboratory = Laboratory(database, tmp_path, fork=False)
    kills = ("undo:c:effect", "undo:a:effect")
    pieces = laboratory.run([Trial(variant, "stubborn", kills) for variant in ("sync", "group")])
    audit(pieces)
    for evidence in pieces:
        assert evidence.killed == 2
        assert [e.name for e in evidence.entries if e.kind == "undo" and e.done] == list("ccbaa")
