"""Sagas that are large in one way: ones that wait, and one of many steps; also by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from dbos import DBOS

from sagas import saga
from steps import step

from .orders import Refused

gate: asyncio.Event | None = None
"""What the waiting ones wait for: made on the loop that they run on."""


async def _pass_gate(number: int) -> int:
    assert gate is not None, "the gate is made before the first saga"
    await gate.wait()
    return number


def take_back(result: int, number: int) -> None:
    """Undo of one of many steps."""


async def take_back_async(result: int, number: int) -> None:
    """Undo of the step that waits."""


@step(undo=take_back_async)
async def wait_at_gate(number: int) -> int:
    return await _pass_gate(number)


@step(undo=take_back)
def one_of_many(number: int) -> int:
    if number < 0:
        raise Refused("the last one")
    return number


@saga
async def waiting(number: int) -> int:
    """One step, which waits."""
    return await wait_at_gate(number)


@saga
def many_steps(count: int, fail: bool) -> int:
    """So many steps, one after another; then perhaps one that fails."""
    done = sum(one_of_many(1) for _ in range(count))
    if fail:
        one_of_many(-1)
    return done


@DBOS.step(name="by_hand.wait_at_gate")
async def wait_at_gate_by_hand(number: int) -> int:
    return await _pass_gate(number)


@DBOS.step(name="by_hand.one_of_many")
def one_of_many_by_hand(number: int) -> int:
    if number < 0:
        raise Refused("the last one")
    return number


@DBOS.step(name="by_hand.take_back")
def take_back_by_hand(result: int, number: int) -> None:
    """Undo of one of many steps."""


@DBOS.workflow(name="by_hand.waiting")
async def waiting_by_hand(number: int) -> int:
    """One step, which waits."""
    return await wait_at_gate_by_hand(number)


@DBOS.workflow(name="by_hand.many_steps")
def many_steps_by_hand(count: int, fail: bool) -> int:
    """So many steps, one after another; then perhaps one that fails."""
    undos: list[Callable[[], None]] = []
    try:
        done = 0
        for _ in range(count):
            result = one_of_many_by_hand(1)
            undos.append(partial(take_back_by_hand, result, 1))
            done += result
        if fail:
            one_of_many_by_hand(-1)
    except Exception:
        for undo in reversed(undos):
            undo()
        raise
    return done
