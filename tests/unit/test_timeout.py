"""Time limits for sync and async bodies."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from steps import StepTimeoutError
from steps._mode import BLOCKING, ON_LOOP, drive
from steps._timeout import limited

SHORT = 0.01
LONG = 10.0

users = contextvars.ContextVar[str]("users", default="unset")
of_dbos = contextvars.ContextVar[str]("dbos_context", default="unset")


def sync(fn: Callable[[], Any], timeout: float = LONG, grace: float = LONG) -> Any:
    return drive(limited(BLOCKING, fn, False, name="charge", timeout=timeout, grace=grace))


def on_loop(
    fn: Callable[[], Any], is_async: bool = True, timeout: float = LONG, grace: float = LONG
) -> Any:
    async def main() -> Any:
        return await limited(ON_LOOP, fn, is_async, name="charge", timeout=timeout, grace=grace)

    return asyncio.run(main())


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.001)


def test_a_result_in_time() -> None:
    """A body that keeps its limit returns its result, whatever runs it."""

    async def body() -> str:
        return "async"

    assert sync(lambda: "sync") == "sync"
    assert on_loop(body) == "async"
    assert on_loop(lambda: "thread", is_async=False) == "thread"


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3)])
def test_an_error_in_time(error: BaseException) -> None:
    """What the body raises is raised itself, also what is no `Exception`."""

    def body() -> None:
        raise error

    with pytest.raises(type(error)) as e:
        sync(body)
    assert e.value is error


def test_an_async_error_in_time() -> None:
    """What an async body raises is raised itself."""

    async def body() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        on_loop(body)


def test_a_sync_body_that_is_late(caplog: pytest.LogCaptureFixture) -> None:
    """A body that ends within the grace has timed out all the same, with name and limit."""
    late = threading.Event()
    threading.Timer(0.03, late.set).start()
    with pytest.raises(StepTimeoutError, match=r"'charge' did not end within 0.01 s") as e:
        sync(lambda: late.wait(5), timeout=SHORT)
    assert (e.value.name, e.value.timeout) == ("charge", SHORT)
    assert late.is_set()
    assert not caplog.records


@pytest.mark.parametrize("fails", [False, True])
def test_a_sync_body_that_ignores_its_limit(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    """A body that goes on after the grace is left behind; its late end is logged, not hidden."""
    go_on = threading.Event()

    def body() -> str:
        go_on.wait(5)
        if fails:
            raise LookupError("too late")
        return "too late"

    with caplog.at_level(logging.WARNING, "sagas"):
        with pytest.raises(StepTimeoutError):
            sync(body, timeout=SHORT, grace=SHORT)
        assert ["left behind" in r.getMessage() for r in caplog.records] == [True]
        go_on.set()
        wait_for(lambda: len(caplog.records) == 2)
    last = caplog.records[1].getMessage()
    assert "charge ended after it had been given up" in last
    assert ("LookupError('too late')" in last) == fails


def test_a_sync_body_does_not_keep_the_process_alive() -> None:
    """A body that never ends runs on a daemon thread, named after the step."""
    thread = sync(threading.current_thread)
    assert thread.daemon
    assert "charge" in thread.name
    assert thread is not threading.current_thread()


def test_a_sync_body_sees_the_callers_context_without_dbos() -> None:
    """A body that is left behind cannot write into the saga: it has no variable of DBOS."""

    def body() -> tuple[str, str, list[str]]:
        names = [v.name for v in contextvars.copy_context()]
        return users.get(), of_dbos.get(), [n for n in names if n.startswith("dbos_")]

    def caller() -> Any:
        users.set("alice")
        of_dbos.set("a workflow")
        return sync(body)

    assert contextvars.copy_context().run(caller) == ("alice", "unset", [])


def test_a_sync_body_does_not_change_the_callers_context() -> None:
    """What the body sets in its context stays there."""

    def caller() -> str:
        sync(lambda: users.set("bob"))
        return users.get()

    assert contextvars.copy_context().run(caller) == "unset"


def test_an_async_body_that_is_late_is_cancelled() -> None:
    """An async body is cancelled at its limit, and its cleanup is waited for."""
    ended: list[str] = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    with pytest.raises(StepTimeoutError, match="'charge'"):
        on_loop(body, timeout=SHORT)
    assert ended == ["cleaned up"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_async_body_that_ends_well_or_badly_in_its_grace(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """Whatever an async body does with its cancellation, its time was up; no error is lost."""

    async def body() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if fails:
                raise LookupError("in cleanup") from None
        return "late"

    with pytest.raises(StepTimeoutError):
        on_loop(body, timeout=SHORT)
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_an_async_body_that_ignores_its_cancellation(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """An async body that goes on after the grace is left behind, and its end is logged."""

    async def main() -> None:
        go_on = asyncio.Event()
        ended = asyncio.Event()

        async def body() -> None:
            try:
                while not go_on.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await go_on.wait()
                if fails:
                    raise LookupError("too late")
            finally:
                ended.set()

        with pytest.raises(StepTimeoutError):
            await limited(ON_LOOP, body, True, name="charge", timeout=SHORT, grace=SHORT)
        assert ["left behind" in r.getMessage() for r in caplog.records] == [True]
        go_on.set()
        await ended.wait()
        for _ in range(3):
            await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "sagas"):
        asyncio.run(main())
    text = caplog.text
    assert "charge ended after it had been given up" in text
    assert ("LookupError('too late')" in text) == fails


def test_a_cancelled_caller_cancels_an_async_body() -> None:
    """A cancellation of the caller reaches the body and is raised as such."""
    ended: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def body() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        task = asyncio.create_task(limited(ON_LOOP, body, True, name="x", timeout=LONG))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ended == ["cancelled"]


@pytest.mark.parametrize("run", [sync, lambda fn, t: on_loop(fn, False, t)], ids=["sync", "loop"])
def test_a_limit_beyond_what_threads_can_wait(run: Any) -> None:
    """A limit of all of time is no limit: the body runs once and its result is returned."""
    calls: list[str] = []

    def body() -> str:
        calls.append("begun")
        time.sleep(0.02)  # so that there is something to wait for
        return "done"

    assert run(body, timedelta.max.total_seconds()) == "done"
    assert calls == ["begun"]


def test_a_timeout_error_of_the_body_is_its_own() -> None:
    """A `TimeoutError` that the body raises is not taken for the limit."""

    async def body() -> None:
        raise TimeoutError("the body's own")

    with pytest.raises(TimeoutError, match="the body's own"):
        on_loop(body)
