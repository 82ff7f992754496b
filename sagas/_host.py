"""How a saga's execution reaches DBOS: blocking, on a thread of its own, or on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from steps._mode import BLOCKING, ON_LOOP, Mode
from steps._timeout import run_on_daemon

from . import _dbos
from ._bell import Bell, LoopBell, ThreadBell

T = TypeVar("T")


class Host(Protocol):
    """How a saga's execution reaches DBOS: blocking, or on an event loop."""

    mode: Mode

    async def run(self, reservation: Any, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
        """Run `body` as a reserved step, or return its recorded outcome."""
        ...

    async def ask(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a blocking function outside the saga."""
        ...

    def bell(self) -> Bell:
        """A bell that wakes this execution."""
        ...

    async def receive(
        self,
        topic: str,
        seconds: float,
        look_up: Callable[[], Awaitable[float | None]],
        bell: Bell,
    ) -> Any:
        """
        The next message on `topic`, or None.

        Args:
            topic: The topic.
            seconds: How long to wait for one.
            look_up: Called at first and after each ring; says when to call it again at the
                latest. What it raises ends the wait here, and leaves the message alone.
            bell: Rung when there is something to look up.
        """
        ...


class BlockingHost:
    """For sync sagas, on a thread of their own."""

    mode = BLOCKING

    async def run(self, reservation: Any, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
        return _dbos.run(reservation, name, body)

    async def ask(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return _dbos.outside(fn, *args, **kwargs)

    def bell(self) -> Bell:
        return ThreadBell()

    async def receive(
        self,
        topic: str,
        seconds: float,
        look_up: Callable[[], Awaitable[float | None]],
        bell: Bell,
    ) -> Any:
        # Nothing else than a message wakes `recv`; so it blocks a thread that can be left behind.
        outcome: Future[Any] = Future()
        context = copy_context()

        def receive() -> None:
            try:
                outcome.set_result(context.run(_dbos.receive, topic, seconds))
            except BaseException as error:
                outcome.set_exception(error)
            bell.ring()

        run_on_daemon(receive)
        while not outcome.done():
            patience = await look_up()
            if not outcome.done():
                await bell.wait(patience)
        return outcome.result()


class LoopHost:
    """For async sagas."""

    mode = ON_LOOP

    async def run(self, reservation: Any, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
        return await _dbos.run_async(reservation, name, body)

    async def ask(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await _dbos.outside_async(fn, *args, **kwargs)

    def bell(self) -> Bell:
        return LoopBell()

    async def receive(
        self,
        topic: str,
        seconds: float,
        look_up: Callable[[], Awaitable[float | None]],
        bell: Bell,
    ) -> Any:
        receiving = asyncio.ensure_future(_dbos.receive_async(topic, seconds))
        try:
            while not receiving.done():
                ringing = asyncio.ensure_future(bell.wait(await look_up()))
                await asyncio.wait({receiving, ringing}, return_when=asyncio.FIRST_COMPLETED)
                ringing.cancel()
        except BaseException:
            receiving.cancel()
            raise
        return receiving.result()
