"""Bells: what wakes an execution that waits, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Protocol


class Bell(Protocol):
    """
    Wakes the one execution that waits for it.

    A ring is kept until somebody waits, so none is lost; what it means is looked up by the waiter.
    """

    def ring(self) -> None:
        """Wake the waiter, or the next one."""
        ...

    async def wait(self, seconds: float | None) -> None:
        """Wait for a ring, at most so many seconds; None: for ever."""
        ...


class ThreadBell:
    """For an execution on a thread of its own."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        self._event.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        self._event.clear()


class LoopBell:
    """For an execution on an event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()
