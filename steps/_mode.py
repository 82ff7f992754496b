"""
Where user code runs: on a thread that may block, or on an event loop.

The library's own logic is written once, as coroutines over a `Mode`. With `BLOCKING` nothing
ever suspends, so `drive` can run such a coroutine to its end in one go, as a plain call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class ShuttingDown(BaseException):
    """The process is ending: this execution stops here, and goes on at the next start."""


class Alarm:
    """
    Ends waits of blocked threads when the process shuts down.

    Each launch has an event of its own, so that what the one before it left behind stays ended.
    """

    def __init__(self) -> None:
        self.event = threading.Event()

    def reset(self) -> None:
        """For a new launch."""
        self.event = threading.Event()

    def ring(self) -> None:
        """End every wait of this launch, now and to come."""
        self.event.set()

    def wait(self, seconds: float) -> None:
        """Wait, or raise `ShuttingDown` as soon as the alarm rings."""
        if self.event.wait(min(seconds, threading.TIMEOUT_MAX)):
            raise ShuttingDown


alarm = Alarm()


class Mode(Protocol):
    """How to call user code and how to wait."""

    async def call(self, fn: Callable[[], Any], is_async: bool) -> Any:
        """The result of `fn`."""

    async def sleep(self, seconds: float) -> None:
        """Wait; ended by `ShuttingDown`."""


class Blocking:
    """On a thread of its own: calls block, nothing suspends."""

    async def call(self, fn: Callable[[], Any], is_async: bool) -> Any:
        return fn()

    async def sleep(self, seconds: float) -> None:
        alarm.wait(seconds)


class OnLoop:
    """On an event loop: blocking functions are sent to a thread."""

    async def call(self, fn: Callable[[], Any], is_async: bool) -> Any:
        if is_async:
            return await fn()
        return await asyncio.to_thread(_without_stop_iteration, fn)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _without_stop_iteration(fn: Callable[[], Any]) -> Any:
    """What `fn` returns; a future, like a coroutine, cannot carry a StopIteration."""
    try:
        return fn()
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


BLOCKING: Mode = Blocking()
ON_LOOP: Mode = OnLoop()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("A blocking call tried to suspend: this is a fault of the library.")


ASYNC_MARK = "__saga_async__"
"""Set on our own callable objects whose call returns an awaitable."""


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling `fn` returns an awaitable."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn) or getattr(fn, ASYNC_MARK, False):
        return True
    return not inspect.isfunction(fn) and inspect.iscoroutinefunction(type(fn).__call__)
