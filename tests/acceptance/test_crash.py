"""Crashes in process, at each point in turn: they are fast, so every single one is tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sagas
from tests.support.actors import Outcome, differences, perform
from tests.support.chaos import ALL, sample
from tests.support.crash import UNWATCHED, register_queue, without_fsync
from tests.support.model import predict
from tests.support.programs import Attempt, Call, Loop, Parallel, Program, Push, Raise

pytestmark = pytest.mark.slow

SYNC = Program(
    (
        Call(0),
        Attempt((Call(1), Call(2, fails=True)), (Call(3, flaky=1),)),
        Loop(2, (Call(4, undo_flaky=1), Push(0))),
        Call(5, undo=False),
        Call(1, fails=True),
    )
)
ASYNC = Program(
    (
        Call(0),
        Attempt(
            (Parallel("task_group", ((Call(1), Call(2)), (Call(3), Call(4, fails=True)))),),
            (Call(5),),
        ),
        Parallel("gather", ((Call(1), Push(0), Call(2)), (Call(3, undo_flaky=1), Raise()))),
    )
)


@pytest.fixture
def _running(config: dict[str, Any]) -> Iterator[None]:
    with without_fsync(), sagas.launch(config, supervision=UNWATCHED):
        register_queue()
        yield


def crashed_everywhere(
    program: Program, on_loop: bool, second: int | None, stride: int
) -> list[Outcome]:
    """Run a program with its first crash at each point in turn, until there are no more."""
    outcomes: list[Outcome] = []
    expected = predict(program, on_loop=on_loop)
    point = 0
    while True:
        schedule = (point,) if second is None else (point, second)
        outcome = perform(program, schedule, seed=point, on_loop=on_loop)
        assert differences(outcome, expected) == [], f"crashed at {outcome.crashes}"
        if not outcome.crashes:
            return outcomes
        outcomes.append(outcome)
        point += stride


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize(
    ("program", "on_loop"), [(SYNC, False), (ASYNC, True)], ids=["sync", "async"]
)
@pytest.mark.parametrize("second", [None, *sample(range(0, 24, 4), 6, offset=1)])
def test_a_crash_at_any_point_changes_nothing(
    program: Program, on_loop: bool, second: int | None, backend: str
) -> None:
    """A saga that crashes at any point, once or twice, has the history of one that does not."""
    every = 1 if ALL or backend == "sqlite" else 5
    outcomes = crashed_everywhere(program, on_loop, second, every)
    reached = {crash for outcome in outcomes for crash in outcome.crashes}
    assert any(crash.startswith("step") for crash in reached)
    assert any(crash.startswith("undo") for crash in reached)
    if every == 1:
        assert {"undo prog.0 begins", "undo prog.0 has taken effect"} <= reached
    if second is not None:
        assert any(len(outcome.crashes) == 2 for outcome in outcomes)
