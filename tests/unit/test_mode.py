"""Blocking and on a loop: the ways to run user code."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from steps._mode import BLOCKING, ON_LOOP, Alarm, ShuttingDown, drive, is_async


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


class Client:
    def plain(self) -> int:
        return 1

    async def coroutine(self) -> int:
        return 1


class AsyncCallable:
    async def __call__(self) -> int:
        return 1


class PlainCallable:
    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "fn",
    [coroutine, Client().coroutine, AsyncCallable(), functools.partial(coroutine)],
    ids=["function", "method", "object", "partial"],
)
def test_what_returns_an_awaitable_is_async(fn: Any) -> None:
    """Coroutine functions are known in every wrapping that Python has for them."""
    assert is_async(fn)


@pytest.mark.parametrize(
    "fn",
    [plain, Client().plain, PlainCallable(), functools.partial(plain), print, AsyncCallable],
    ids=["function", "method", "object", "partial", "builtin", "class"],
)
def test_what_returns_no_awaitable_is_not_async(fn: Any) -> None:
    """A plain callable is never taken for an async one."""
    assert not is_async(fn)


def test_drive_runs_a_coroutine_that_never_suspends() -> None:
    """A coroutine over the blocking mode runs to its end in one go."""

    async def work() -> str:
        await BLOCKING.sleep(0)
        return str(await BLOCKING.call(plain, is_async=False))

    assert drive(work()) == "1"


def test_drive_passes_errors_on() -> None:
    """What the coroutine raises, the plain call raises."""

    async def work() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        drive(work())


def test_drive_refuses_to_suspend() -> None:
    """A suspension in a blocking call is a fault that is told, and its cleanup runs."""
    closed: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="suspend"):
        drive(work())
    assert closed == [True]


def test_a_blocking_function_does_not_block_the_loop() -> None:
    """On a loop plain functions run on another thread, async ones on the loop."""

    async def where() -> int:
        return threading.get_ident()

    async def main() -> None:
        here = threading.get_ident()
        assert await ON_LOOP.call(threading.get_ident, is_async=False) != here
        assert await ON_LOOP.call(where, is_async=True) == here

    asyncio.run(main())


def test_the_alarm_ends_a_wait_at_once() -> None:
    """A wait ends with `ShuttingDown` when the alarm rings, and every later one too."""
    alarm = Alarm()
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            alarm.wait(60)
        except ShuttingDown as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    alarm.ring()
    thread.join(10)
    assert len(seen) == 1
    with pytest.raises(ShuttingDown):
        alarm.wait(0)


def test_the_alarm_can_be_reset() -> None:
    """After a new launch waits work again; what the old one left behind stays ended."""
    alarm = Alarm()
    before = alarm.event
    alarm.ring()
    alarm.reset()
    alarm.wait(0)
    assert before.is_set()


def test_shutting_down_is_no_exception() -> None:
    """User code that catches `Exception` does not swallow the end of the process."""
    assert not issubclass(ShuttingDown, Exception)
