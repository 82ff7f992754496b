"""When an executor is dead, and what becomes of its sagas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from sagas._absence import Absence, observe
from sagas._failover import Action, action
from sagas._marks import Marks

PATIENCE = 10.0


def seen(looks: Iterable[tuple[float, bool]], since: float = 0.0) -> dict[str, Absence]:
    """What is known of executor x after looks at these times, at which its name was free or not."""
    known: dict[str, Absence] = {}
    for time, free in looks:
        known = observe(known, {"x"} if free else set(), time, since)
    return known


def dies(looks: Iterable[tuple[float, bool]], since: float = 0.0) -> bool:
    known = seen(looks, since).get("x")
    return known is not None and known.is_death(PATIENCE)


def test_a_name_that_stays_free_is_that_of_a_dead_executor() -> None:
    """Enough looks over a long enough time, all in vain, declare an executor dead."""
    assert dies([(0, True), (5, True), (10, True)])


def test_patience() -> None:
    """Many looks within a short time declare nobody dead."""
    assert not dies([(n / 10, True) for n in range(100)])


def test_enough_looks() -> None:
    """Two looks declare nobody dead, however far apart."""
    assert not dies([(0, True), (1000, True)])


def test_a_name_that_was_held_once_begins_anew() -> None:
    """An executor that takes its name again in between is alive; later looks count from there."""
    looks = [(0.0, True), (5.0, True), (9.0, False), (10.0, True), (15.0, True)]
    assert not dies(looks)
    assert dies([*looks, (20.0, True)])


def test_looks_of_an_earlier_session_do_not_count() -> None:
    """A server that restarts frees all names: only what the present session saw counts."""
    before = seen([(0, True), (5, True), (9, True)])
    after = observe(before, {"x"}, 12.0, 11.0)
    assert after == {"x": Absence(12.0, 12.0, 1)}
    assert dies([(12, True), (17, True), (22, True)], since=11.0)


def test_each_executor_has_its_own_absence() -> None:
    """The looks at one executor say nothing of another, and nobody is remembered needlessly."""
    known = observe({}, {"x", "y"}, 1.0, 0.0)
    known = observe(known, {"y", "z"}, 2.0, 0.0)
    assert known == {"y": Absence(1.0, 2.0, 2), "z": Absence(2.0, 2.0, 1)}


@pytest.mark.parametrize(
    ("attributes", "limit", "expected"),
    [
        (None, 3, Action.RESUME),
        ({}, 0, Action.PARK),
        ({"sagas.takeovers": 2}, 3, Action.RESUME),
        ({"sagas.takeovers": 3}, 3, Action.PARK),
        ({"sagas.takeovers": 1000}, None, Action.RESUME),
        ({"sagas.takeovers": "many"}, 1, Action.RESUME),
        ({"sagas.parked": {"reason": "x"}}, 3, Action.FINISH),
        ({"sagas.parked": None}, 3, Action.RESUME),
        ({"sagas.terminated": {"reason": "x"}, "sagas.takeovers": 9}, 3, Action.FINISH),
    ],
)
def test_what_becomes_of_a_saga(attributes: Any, limit: int | None, expected: Action) -> None:
    """A saga goes on until it was taken over too often; one that was stopped stays so."""
    assert action(Marks.parse(attributes), limit) is expected


def test_takeovers_are_counted_from_none() -> None:
    """A saga that was never taken over says so."""
    assert Marks.parse(None).takeovers == 0
    assert Marks.parse({"sagas.takeovers": 4}).takeovers == 4
