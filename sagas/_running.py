"""The sagas that are running in this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Protocol

from ._bell import Bell
from ._errors import SagaUsageError
from ._flight import InFlight
from ._marks import Resolution
from ._stop import Stop


class Run(Protocol):
    """An execution, as it is seen from outside it."""

    saga_id: str
    is_async: bool
    thread: int
    in_body: bool
    """Whether its body is running user code outside any step."""
    compensating: bool
    struggling: bool
    """Whether it is marked as needing attention for an undo that fails again and again."""
    ended: threading.Event
    """Set when it has ended."""
    bell: Bell
    """Wakes it where it waits."""
    in_flight: dict[int, InFlight]
    """The bodies of steps and undos that are running, by the ID of the step."""

    def ask(self, stop: Stop) -> None:
        """Have it turn round."""
        ...

    def resolve(self, resolved: Mapping[int, Resolution]) -> None:
        """Tell it which steps a person has undone."""
        ...

    def fence(self, why: str) -> None:
        """Have it begin nothing more and end."""
        ...


_lock = threading.Lock()
_runs: dict[str, list[Run]] = {}
_barred: str | None = None
"""Why no execution may begin anything here; None: each may."""

_WAITS = ("threading", "concurrent.futures", "queue", "multiprocessing")


def add(run: Run) -> list[Run]:
    """An execution begins; returns those of the same saga that have not ended yet."""
    with _lock:
        runs = _runs.setdefault(run.saga_id, [])
        before = list(runs)
        runs.append(run)
        barred = _barred
    if barred is not None:
        run.fence(barred)
    return before


def remove(run: Run) -> None:
    """An execution has ended."""
    with _lock:
        rest = [r for r in _runs.get(run.saga_id, ()) if r is not run]
        if rest:
            _runs[run.saga_id] = rest
        else:
            _runs.pop(run.saga_id, None)


def of(saga_id: str) -> Run | None:
    """The newest execution of a saga here; None where there is none."""
    runs = _runs.get(saga_id)
    return runs[-1] if runs else None


_noticed: Callable[[str], None] | None = None
_lost: Callable[[str], None] | None = None


def set_watcher(noticed: Callable[[str], None] | None, lost: Callable[[str], None] | None) -> None:
    """
    Have a supervisor told of what happens here.

    Args:
        noticed: Called when the marks of a saga have changed that runs here.
        lost: Called when an execution has ended without an outcome.
    """
    global _noticed, _lost
    _noticed, _lost = noticed, lost


def notice(saga_id: str) -> None:
    """The marks of a saga have changed: if it runs here, it is to notice at once."""
    if _noticed is not None and saga_id in _runs:
        _noticed(saga_id)


def lose(saga_id: str) -> None:
    """An execution has ended without an outcome, and without having lost its saga to another."""
    if _lost is not None:
        _lost(saga_id)


def all_runs() -> list[Run]:
    """Every execution here."""
    with _lock:
        return [r for several in _runs.values() for r in several]


def wake_all() -> None:
    """Wake every execution that waits: there is something to notice."""
    for run in all_runs():
        run.bell.ring()


def bar(why: str) -> None:
    """Have every execution here, and each to come, begin nothing more and end."""
    global _barred
    with _lock:
        _barred = why
    for run in all_runs():
        run.fence(why)


def unbar() -> None:
    """Let executions that begin from now on go on."""
    global _barred
    with _lock:
        _barred = None


def count() -> int:
    """How many executions there are."""
    return len(_runs)


def refuse_thread_of_a_saga(step: str) -> None:
    """
    Refuse a step that a saga's body calls on a bare thread of its own.

    Such a thread does not know of the saga, so the step would be a plain function there: not
    recorded, never undone. It is told by a sync saga whose body, outside any step, waits for
    another thread at this very moment.
    """
    if not _runs:
        return
    here = threading.get_ident()
    for run in all_runs():
        if run.in_body and not run.is_async and run.thread != here and _waits(run.thread):
            raise SagaUsageError(
                f"Step {step!r} was called on a thread that the body of saga {run.saga_id!r} "
                f"waits for. It would not be recorded there, and never undone: call steps on the "
                f"saga's own thread."
            )


def _waits(thread: int) -> bool:
    frame: FrameType | None = sys._current_frames().get(thread)
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_WAITS)
