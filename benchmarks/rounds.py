"""One round of one side: so many sagas, started and waited for in one of several ways."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from dbos import DBOS

from .figures import Round
from .sides import QUEUE, Side, SideName, side

IN_FLIGHT = 32

Way = Literal["one at a time", "in flight", "enqueued"]
Outcome = Literal["success", "failure"]


class WrongResult(Exception):
    """A saga did not end as it should have: the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a round does."""

    way: Way
    outcome: Outcome
    is_async: bool
    count: int
    """Sagas in one round."""

    @property
    def order(self) -> int:
        """The order that ends so."""
        return 7 if self.outcome == "success" else -7


def run(case: Case, name: SideName, runner: asyncio.Runner) -> Round:
    """Run a round, and see that every saga ended as it should."""
    chosen = side(name)
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    if case.is_async:
        runner.run(_ASYNC[case.way](case, chosen))
    else:
        _SYNC[case.way](case, chosen)
    return Round(case.count, time.perf_counter() - began, time.process_time() - cpu)


def _wait(case: Case, chosen: Side, handle: object) -> None:
    try:
        result = chosen.wait(handle)
    except chosen.failure:
        if case.outcome == "success":
            raise
        return
    if case.outcome == "failure" or result != "message-7":
        raise WrongResult(f"{result!r} in {case}")


def _one_at_a_time(case: Case, chosen: Side) -> None:
    for _ in range(case.count):
        _wait(case, chosen, chosen.start(case.order))


def _in_flight(case: Case, chosen: Side) -> None:
    handles: deque[object] = deque()
    for _ in range(case.count):
        if len(handles) == IN_FLIGHT:
            _wait(case, chosen, handles.popleft())
        handles.append(chosen.start(case.order))
    while handles:
        _wait(case, chosen, handles.popleft())


def _enqueued(case: Case, chosen: Side) -> None:
    for _ in range(case.count):
        chosen.enqueue(case.order)
    while not _is_drained():
        time.sleep(0.01)


async def _wait_async(case: Case, chosen: Side, handle: object) -> None:
    try:
        result = await chosen.wait_async(handle)
    except chosen.failure:
        if case.outcome == "success":
            raise
        return
    if case.outcome == "failure" or result != "message-7":
        raise WrongResult(f"{result!r} in {case}")


async def _one_at_a_time_async(case: Case, chosen: Side) -> None:
    for _ in range(case.count):
        await _wait_async(case, chosen, await chosen.start_async(case.order))


async def _in_flight_async(case: Case, chosen: Side) -> None:
    left = case.count

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _wait_async(case, chosen, await chosen.start_async(case.order))

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(one_after_another())


async def _enqueued_async(case: Case, chosen: Side) -> None:
    for _ in range(case.count):
        await chosen.enqueue_async(case.order)
    while not await asyncio.to_thread(_is_drained):  # noqa: ASYNC110 - the database is what ends it
        await asyncio.sleep(0.01)


def _is_drained() -> bool:
    """Whether nothing is left of the queue: asked alike for both sides, whose waits differ."""
    if _is_there(["ERROR", "CANCELLED"]):
        raise WrongResult("a saga from the queue did not succeed")
    return not _is_there(["ENQUEUED", "PENDING"])


def _is_there(status: list[str]) -> bool:
    return bool(
        DBOS.list_workflows(
            queue_name=QUEUE, status=status, limit=1, load_input=False, load_output=False
        )
    )


_SYNC: dict[Way, Callable[[Case, Side], None]] = {
    "one at a time": _one_at_a_time,
    "in flight": _in_flight,
    "enqueued": _enqueued,
}
_ASYNC: dict[Way, Callable[[Case, Side], Coroutine[Any, Any, None]]] = {
    "one at a time": _one_at_a_time_async,
    "in flight": _in_flight_async,
    "enqueued": _enqueued_async,
}
