"""An application in a process of its own, which does on demand what it is told to."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

from dbos import DBOS

import sagas

from . import rounds
from .figures import Round
from .sides import QUEUE, SideName

T = TypeVar("T")

POLLING_INTERVAL = 0.02
"""Seconds between two looks of a worker at the queue: both sides wait for it alike."""

_runner: asyncio.Runner | None = None


def launch(config: dict[str, Any], in_flight: int) -> None:
    """Start the application here, with the queue that the benchmarks use."""
    global _runner
    from . import sides  # noqa: F401 - before the launch, as every module with sagas

    sagas.launch(config)
    DBOS.register_queue(
        QUEUE,
        worker_concurrency=in_flight,
        polling_interval_sec=POLLING_INTERVAL,
        on_conflict="always_update",
    )
    _runner = asyncio.Runner()
    atexit.register(sagas.shutdown)


def run_round(case: rounds.Case, side: SideName) -> Round:
    """A round in the application that runs here."""
    assert _runner is not None, "launch comes first"
    return rounds.run(case, side, _runner)


class Application:
    """A launched application in another process; as a context manager it ends with the block."""

    def __init__(self, config: dict[str, Any], in_flight: int = rounds.IN_FLIGHT) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._ready = self._pool.submit(launch, config, in_flight)

    def __enter__(self) -> Application:
        self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, fn: Callable[..., T], *args: Any) -> Future[T]:
        """Have it call a function of a module, and go on."""
        return self._pool.submit(fn, *args)

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Have it call a function of a module."""
        return self.begin(fn, *args).result()

    def round(self, case: rounds.Case, side: SideName) -> Round:
        """A round there."""
        return self.call(run_round, case, side)
