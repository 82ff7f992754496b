"""
Time limits for sync and async bodies.

A sync body cannot be stopped from outside. It runs on a daemon thread and, when its time is
up, is left behind: its result is thrown away and its late error is logged. So is an async body
that ignores its cancellation. Both get every ContextVar but DBOS's own; with those, whatever the
body does late would be written into the history of the saga that has gone on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, ClassVar

from ._errors import StepTimeoutError
from ._mode import Mode

log = logging.getLogger("sagas")

GRACE = 5.0
"""Seconds that a body may go on after its limit before it is left behind."""

MOMENT = 0.05
"""Seconds in which an async body that obeys its cancellation ends."""


def _without_dbos() -> Context:
    fresh = Context()
    for variable, value in copy_context().items():
        if not variable.name.startswith("dbos_"):
            fresh.run(variable.set, value)
    return fresh


def run_on_daemon(job: Callable[[], None]) -> None:
    """Run `job`, which raises nothing, on a thread that does not keep the process alive."""
    _Worker.run(job)


class _Worker:
    """A daemon thread that runs one body after another, and ends when it has been idle."""

    idle: ClassVar[list[_Worker]] = []
    patience = 10.0

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sagas-body", daemon=True).start()

    @classmethod
    def run(cls, job: Callable[[], None]) -> None:
        """Run `job` on an idle worker, or on a new one."""
        try:
            worker = cls.idle.pop()
        except IndexError:
            worker = cls()
        worker._jobs.put(job)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self.patience)
            except queue.Empty:
                with contextlib.suppress(ValueError):
                    self.idle.remove(self)
                    return
                continue  # taken off the list just now: a job is on its way
            job()
            del job  # with all that it refers to
            self.idle.append(self)


class _Attempt:
    """A sync body on a thread of its own."""

    def __init__(self, name: str, fn: Callable[[], Any]) -> None:
        self.ended = threading.Event()
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._name = name
        self._fn = fn
        context = _without_dbos()
        _Worker.run(lambda: context.run(self._run))

    def _run(self) -> None:
        threading.current_thread().name = f"sagas-{self._name}"
        try:
            self.result = self._fn()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            if self.abandoned:
                log.warning(
                    "%s ended after it had been given up: %s; its outcome is ignored.",
                    self._name,
                    "with " + repr(self.error) if self.error else "without an error",
                )

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Leftover:
    """
    A body that went on after its limit.

    Attributes:
        name: Whose.
        since: When it was left behind, on the monotonic clock.
    """

    def __init__(self, name: str, ended: threading.Event | asyncio.Future[Any]) -> None:
        self.name = name
        self.since = time.monotonic()
        self._ended = ended

    async def wait(self, mode: Mode, seconds: float) -> bool:
        """Wait for its end, at most so many seconds; whether it has ended."""
        ended = self._ended
        if isinstance(ended, threading.Event):
            return bool(await mode.call(lambda: ended.wait(seconds), False))
        await asyncio.wait({ended}, timeout=seconds)
        return ended.done()


LeftBehind = Callable[[Leftover], None]


def _limited_blocking(
    fn: Callable[[], Any], name: str, timeout: float, grace: float, left_behind: LeftBehind
) -> Any:
    attempt = _Attempt(name, fn)
    if attempt.ended.wait(min(timeout, threading.TIMEOUT_MAX)):
        return attempt.outcome()
    if not attempt.ended.wait(grace):
        attempt.abandoned = True
        log.warning("%s ignores its limit of %g s; it is left behind.", name, timeout)
        left_behind(Leftover(name, attempt.ended))
    raise StepTimeoutError(name, timeout)


async def _limited_on_loop(
    fn: Callable[[], Any], name: str, timeout: float, grace: float, left_behind: LeftBehind
) -> Any:
    began = asyncio.get_running_loop().time()
    body = asyncio.get_running_loop().create_task(_awaited(fn), context=_without_dbos())
    try:
        done, _ = await asyncio.wait({body}, timeout=timeout)
        if not done:
            body.cancel()
            done, _ = await asyncio.wait({body}, timeout=max(grace, MOMENT))
            if not done:
                log.warning("%s ignores its limit of %g s; it is left behind.", name, timeout)
                body.add_done_callback(lambda late: _report(late, name))
                left_behind(Leftover(name, body))
            elif not body.cancelled():
                body.exception()
            raise StepTimeoutError(name, timeout)
    except asyncio.CancelledError:
        body.cancel()
        raise
    took = asyncio.get_running_loop().time() - began
    if took > timeout + MOMENT:
        log.warning(
            "%s took %.2f s, and its limit is %g s: it blocked the event loop, so nothing could "
            "stop it. Use asyncio.to_thread for blocking calls.",
            name,
            took,
            timeout,
        )
    return body.result()


async def _awaited(fn: Callable[[], Any]) -> Any:
    return await fn()


def _report(late: asyncio.Future[Any], name: str) -> None:
    error = None if late.cancelled() else late.exception()
    log.warning("%s ended after it had been given up; its outcome is ignored.", name)
    if error is not None:
        log.warning("%s ended with %r.", name, error)


async def limited(
    mode: Mode,
    fn: Callable[[], Any],
    is_async: bool,
    *,
    name: str,
    timeout: float,
    grace: float = GRACE,
    left_behind: LeftBehind = lambda _: None,
) -> Any:
    """
    The result of `fn`, if it comes in time.

    Args:
        mode: Where the caller runs.
        fn: The body, its arguments bound.
        is_async: Whether it returns an awaitable.
        name: For messages.
        timeout: Seconds it may take.
        grace: Seconds it may go on after that before it is left behind.
        left_behind: Told of a body that is left behind.

    Cancellation:
        An async body is cancelled with its caller; a sync one goes on.

    Raises:
        StepTimeoutError: It did not.
    """
    if is_async:
        return await _limited_on_loop(fn, name, timeout, grace, left_behind)
    return await mode.call(lambda: _limited_blocking(fn, name, timeout, grace, left_behind), False)
