"""Bells wake the one who waits, or the next one."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from sagas._bell import LoopBell, ThreadBell
from steps._mode import drive


def test_a_ring_wakes_a_thread() -> None:
    """Whoever waits is woken from another thread."""
    bell = ThreadBell()
    threading.Timer(0.02, bell.ring).start()
    drive(bell.wait(None))


def test_a_ring_is_kept_for_the_next_thread_that_waits() -> None:
    """A ring before the wait ends it, and is used up by that."""
    bell = ThreadBell()
    bell.ring()
    bell.ring()
    drive(bell.wait(None))
    began = time.monotonic()
    drive(bell.wait(0.03))
    assert time.monotonic() - began >= 0.03


@pytest.mark.parametrize("seconds", [1e12, 3e8])
def test_a_very_long_wait(seconds: float) -> None:
    """A wait may be longer than the platform's longest."""
    bell = ThreadBell()
    bell.ring()
    drive(bell.wait(seconds))

    async def main() -> None:
        bell = LoopBell()
        bell.ring()
        await bell.wait(seconds)

    asyncio.run(main())


def test_a_ring_wakes_a_task_from_any_thread() -> None:
    """A ring on another thread reaches the event loop."""

    async def main() -> None:
        bell = LoopBell()
        threading.Timer(0.02, bell.ring).start()
        await bell.wait(None)

    asyncio.run(main())


def test_a_ring_is_kept_for_the_next_task_that_waits() -> None:
    """A ring before the wait ends it, and is used up by that; time ends it, too."""

    async def main() -> float:
        bell = LoopBell()
        bell.ring()
        await bell.wait(None)
        began = time.monotonic()
        await bell.wait(0.03)
        return time.monotonic() - began

    assert asyncio.run(main()) >= 0.02


def test_a_cancelled_wait_loses_no_ring() -> None:
    """A wait that is given up leaves the ring to the next one."""

    async def main() -> None:
        bell = LoopBell()
        waiting = asyncio.ensure_future(bell.wait(None))
        await asyncio.sleep(0)
        waiting.cancel()
        bell.ring()
        await asyncio.wait({waiting})
        await asyncio.wait_for(bell.wait(None), 5)

    asyncio.run(main())


def test_a_ring_after_the_loop_has_closed() -> None:
    """Nobody waits there any more; it is no error."""

    async def main() -> LoopBell:
        return LoopBell()

    asyncio.run(main()).ring()
