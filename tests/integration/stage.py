"""Sagas that play a script, sync or async, and what can be done to them on the way."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from sagas import SagaHandle, _running, saga
from steps import RetryPolicy, receive, receive_async, sleep, sleep_async, step

from .support import Ledger, until

PATIENCE = 20.0
"""Seconds after which what is held goes on, so that a test that is wrong ends."""


class Stage(Ledger):
    """
    What takes effect, and what is to happen then.

    Attributes:
        results: What a step returns instead of its name in capitals.
        switched: Whether the code has been changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.clear()
        self.died.clear()
        self._crashes.clear()
        self.results: dict[str, Any] = {}
        self.switched = False
        self._held: dict[str, threading.Event] = {}
        self._failing: dict[str, Callable[[], Exception]] = {}

    def hold(self, *entries: str) -> None:
        """Have what takes effect so go on only when it is let go."""
        for entry in entries:
            self._held[entry] = threading.Event()

    def let_go(self, *entries: str) -> None:
        """Let it go on."""
        for entry in entries:
            self._held[entry].set()

    def break_(self, entry: str, error: Callable[[], Exception]) -> None:
        """Have it fail, with a new error each time."""
        self._failing[entry] = error

    def mend(self, *entries: str) -> None:
        """Have it fail no more."""
        for entry in entries:
            del self._failing[entry]

    def _end(self, entry: str) -> None:
        self.perhaps_die(entry)
        if (error := self._failing.get(entry)) is not None:
            raise error()

    def play(self, entry: str) -> None:
        """Take effect, on a thread."""
        self.append(entry)
        if (held := self._held.get(entry)) is not None:
            assert held.wait(PATIENCE)
        self._end(entry)

    async def play_async(self, entry: str) -> None:
        """Take effect, on an event loop."""
        self.append(entry)
        held, ends = self._held.get(entry), time.monotonic() + PATIENCE
        while held is not None and not held.is_set():
            assert time.monotonic() < ends
            await asyncio.sleep(0.005)
        self._end(entry)


STAGE = Stage()
QUICKLY = RetryPolicy(max_attempts=None, first_delay=0.01, max_delay=0.05)
SLOWLY = RetryPolicy(max_attempts=None, first_delay=600, max_delay=600)


def result_of(name: str) -> Any:
    return STAGE.results.get(name, name.upper())


def undo(result: Any, name: str) -> None:
    STAGE.play(f"undo {name}")


async def undo_async(result: Any, name: str) -> None:
    await STAGE.play_async(f"undo {name}")


@step(undo=undo, undo_retry=QUICKLY)
def act(name: str) -> Any:
    STAGE.play(f"do {name}")
    return result_of(name)


@step(undo=undo, retry=SLOWLY, undo_retry=SLOWLY)
def act_slowly(name: str) -> Any:
    STAGE.play(f"do {name}")
    return result_of(name)


@step(undo=undo_async, undo_retry=QUICKLY)
async def act_async(name: str) -> Any:
    await STAGE.play_async(f"do {name}")
    return result_of(name)


@step(undo=undo_async, retry=SLOWLY, undo_retry=SLOWLY)
async def act_slowly_async(name: str) -> Any:
    await STAGE.play_async(f"do {name}")
    return result_of(name)


def fail() -> None:
    raise ValueError("no")


def one(line: str) -> Any:
    match line.split():
        case ["fail"]:
            fail()
        case ["slowly", name]:
            return act_slowly(name)
        case ["either", before, after]:
            return act_slowly(after) if STAGE.switched else act(before)
        case ["try", name]:
            try:
                return act(name)
            except Exception:
                return "swallowed"
        case ["receive", topic]:
            return receive(topic)
        case ["sleep", seconds]:
            return sleep(float(seconds))
        case ["return", name]:
            return STAGE.results.get(name, name)
        case [name]:
            return act(name)
    raise AssertionError(line)


async def one_async(line: str) -> Any:
    match line.split():
        case ["fail"]:
            fail()
        case ["slowly", name]:
            return await act_slowly_async(name)
        case ["either", before, after]:
            return await (act_slowly_async(after) if STAGE.switched else act_async(before))
        case ["try", name]:
            try:
                return await act_async(name)
            except Exception:
                return "swallowed"
        case ["receive", topic]:
            return await receive_async(topic)
        case ["sleep", seconds]:
            return await sleep_async(float(seconds))
        case ["return", name]:
            return STAGE.results.get(name, name)
        case ["all", *names]:
            return await asyncio.gather(*(act_async(name) for name in names))
        case [name]:
            return await act_async(name)
    raise AssertionError(line)


@saga
def play(script: str) -> list[Any]:
    return [one(line) for line in script.split("; ")]


@saga
async def play_async(script: str) -> list[Any]:
    return [await one_async(line) for line in script.split("; ")]


@saga(undo_failure="continue")
def play_on(script: str) -> list[Any]:
    return [one(line) for line in script.split("; ")]


@saga(undo_failure="continue")
async def play_on_async(script: str) -> list[Any]:
    return [await one_async(line) for line in script.split("; ")]


def new_id() -> str:
    return f"s{uuid.uuid4().hex[:10]}"


def started(saga: Any, script: str, **options: Any) -> SagaHandle[Any]:
    """Start a saga that plays this script."""
    handle: SagaHandle[Any] = saga.options(saga_id=new_id(), **options).start(script)
    return handle


def anew(handle: SagaHandle[Any]) -> SagaHandle[Any]:
    """A handle that knows of no execution, as one of another process: none sees a crash."""
    return SagaHandle(handle.saga_id)


def reached(entry: str, times: int = 1) -> None:
    """Wait until this has taken effect."""
    until(lambda: STAGE.count(entry) >= times)


def ended(handle: SagaHandle[Any]) -> Any:
    """Wait for the saga's end, and return its state."""
    until(lambda: handle.status().is_final and _running.of(handle.saga_id) is None)
    return handle.state()


def told(saga_id: str) -> None:
    """Wait until the execution here knows of the request to cancel, or has ended."""

    def knows() -> bool:
        run: Any = _running.of(saga_id)
        return run is None or run.request is not None

    until(knows)


def waits(saga_id: str) -> bool:
    """Whether the saga waits for a message, or for time to pass."""
    run: Any = _running.of(saga_id)
    return run is not None and run.waiting is not None


def pauses(saga_id: str) -> bool:
    """Whether an attempt of a step, or an undo, has failed, and the next is waited for."""
    run = _running.of(saga_id)
    return run is not None and any(f.failed for f in list(run.in_flight.values()))
