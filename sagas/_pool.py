"""Threads: for sync sagas that are started from this process, and off an event loop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from . import _dbos

T = TypeVar("T")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_limit: int | None = None


def limit(threads: int | None) -> None:
    """Have at most so many; None: as many as there are sagas."""
    global _limit
    _limit = threads


def limited() -> int | None:
    """How many threads there may be; None: as many as there are sagas."""
    return _limit


def submit(fn: Callable[..., Any], *args: Any) -> Future[Any]:
    """Run `fn` on a thread."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_limit or sys.maxsize, thread_name_prefix="saga")
        return _pool.submit(fn, *args)


def close() -> None:
    """Begin nothing more; what runs ends by itself."""
    global _pool
    with _lock:
        if _pool is not None:
            _pool.shutdown(wait=False, cancel_futures=True)
            _pool = None


def off_loop(fn: Callable[..., T], *args: Any) -> T:
    """`outside`, on a thread: DBOS refuses its blocking calls where an event loop is running."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(_dbos.outside(fn, *args))
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answer.result()
