"""Random sagas, with random crashes, against a model of the promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import sagas
from tests.support.actors import Outcome, differences, perform
from tests.support.chaos import ALL
from tests.support.crash import UNWATCHED, register_queue, without_fsync
from tests.support.model import predict
from tests.support.programs import Program, programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    # DBOS's threads do, while a case is being made up.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

SEEDS = st.integers(0, 2**16)
CRASHES = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(tuple)
MANY = 40 if ALL else 1
"""How many times as many cases as in CI."""


@pytest.fixture
def runner(config: dict[str, Any]) -> Iterator[None]:
    """A launched application that resumes crashed sagas at once."""
    with without_fsync(), sagas.launch(config, supervision=UNWATCHED):
        register_queue()
        yield


def compare(program: Program, schedule: tuple[int, ...], seed: int, *, on_loop: bool) -> Outcome:
    """Run a program; it must come to what the model says."""
    expected = predict(program, on_loop=on_loop)
    outcome = perform(program, schedule, seed, on_loop=on_loop)
    note(f"crashes: {outcome.crashes}; {outcome.reason}")
    assert differences(outcome, expected) == []
    return outcome


def examples(backend: str, on_sqlite: int, on_postgres: int) -> settings:
    """So many cases, by the backend."""
    return settings(max_examples=MANY * (on_sqlite if backend == "sqlite" else on_postgres))


def test_sync_sagas_do_what_they_promise(runner: None, backend: str) -> None:
    """A sync saga comes to what the model says, however it is crashed and resumed."""

    @examples(backend, 120, 30)
    @given(programs(concurrent=False, fatal_undos=True), st.just(()) | CRASHES, SEEDS)
    def check(program: Program, schedule: tuple[int, ...], seed: int) -> None:
        compare(program, schedule, seed, on_loop=False)

    check()


def test_async_sagas_do_what_they_promise(runner: None, backend: str) -> None:
    """An async saga with concurrent steps comes to what the model says, whatever their speed."""

    @examples(backend, 80, 20)
    @given(programs(concurrent=True, fatal_undos=True), SEEDS)
    def check(program: Program, seed: int) -> None:
        compare(program, (), seed, on_loop=True)

    check()


def test_concurrent_steps_are_safe_to_replay(runner: None, backend: str) -> None:
    """However it is crashed, resumed and interleaved, an async saga has the steps of the model."""

    @examples(backend, 200, 50)
    @given(programs(concurrent=True), CRASHES, SEEDS)
    def check(program: Program, schedule: tuple[int, ...], seed: int) -> None:
        compare(program, schedule, seed, on_loop=True)

    check()
