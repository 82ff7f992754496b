"""Sagas of a thousand steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import SagaHandle, SagaStatus
from steps import idempotency_key, step
from tests.support.crash import Crasher, register_queue, run_to_its_end, without_fsync

pytestmark = pytest.mark.slow

STEPS = 1000
DONE: Counter[str] = Counter()
UNDONE: list[str] = []
CRASHER = Crasher()


class NoRoom(Exception):
    """The last step fails."""


def take_back(result: int) -> None:
    CRASHER.point(f"undo {result}")
    UNDONE.append(idempotency_key())


async def take_back_async(result: int) -> None:
    take_back(result)


def _take(number: int) -> int:
    if number > STEPS:
        raise NoRoom(number)
    DONE[idempotency_key()] += 1
    return number


@step(name="scale.take", undo=take_back)
def take(number: int) -> int:
    return _take(number)


@step(name="scale.take_async", undo=take_back_async)
async def take_async(number: int) -> int:
    return _take(number)


@sagas.saga(name="scale-sync")
def many() -> None:
    CRASHER.enter()
    for number in range(1, STEPS + 2):
        take(number)


@sagas.saga(name="scale-async")
async def many_async() -> None:
    CRASHER.enter()
    for number in range(1, STEPS + 2):
        await take_async(number)


@sagas.saga(name="scale-wide")
async def many_at_once() -> None:
    CRASHER.enter()
    await asyncio.gather(*(take_async(number) for number in range(1, STEPS + 1)))
    await take_async(STEPS + 1)


SAGAS: dict[str, Any] = {"sync": many, "async": many_async, "wide": many_at_once}


@pytest.fixture
def _running(config: dict[str, Any]) -> Iterator[None]:
    global CRASHER
    CRASHER = Crasher((STEPS // 2,))  # half way through the undos
    DONE.clear()
    UNDONE.clear()
    with without_fsync(), sagas.launch(config):
        register_queue()
        yield


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize("shape", SAGAS)
def test_a_thousand_steps_are_undone_across_a_crash(shape: str) -> None:
    """A saga whose 1,001st step fails undoes the thousand, newest first, though it crashes."""
    handle: SagaHandle[object] = SAGAS[shape].options(saga_id="many").start()
    assert run_to_its_end(handle, CRASHER, timeout=120) is SagaStatus.FAILED
    assert CRASHER.crashes == [f"undo {STEPS // 2}"]
    keys = [f"many:{i}" for i in range(1, STEPS + 1)]
    assert Counter(keys) == DONE
    assert keys[::-1] == UNDONE
    rows = [r["function_name"] for r in DBOS.list_workflow_steps("many")]
    name = "scale.take" if shape == "sync" else "scale.take_async"
    assert rows[: STEPS + 1] == [name] * (STEPS + 1)
    assert rows[STEPS + 1 :] == [f"undo:{i}:{name}" for i in range(STEPS, 0, -1)]
    state = handle.state()
    assert state.error is not None
    assert [u.step_id for u in state.error.undone] == list(range(STEPS, 0, -1))
