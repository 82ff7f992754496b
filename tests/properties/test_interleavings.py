"""Bodies that coordinate their branches in their own ways, crashed at each point in turn."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import SagaHandle, SagaStatus
from steps import idempotency_key, step
from steps.abc import Retried
from tests.support.chaos import ALL
from tests.support.crash import UNWATCHED, Crasher, register_queue, run_to_its_end, without_fsync

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


class Watch:
    """Which call each idempotency key was used by."""

    def __init__(self, schedule: tuple[int, ...], seed: int) -> None:
        self.crasher = Crasher(schedule)
        self.random = random.Random(seed)
        self.labels: dict[str, set[str]] = {}
        self.undone: list[str] = []
        self.lock = threading.Lock()

    def begin(self, label: str) -> float:
        """A call begins; how many seconds it is to take."""
        self.crasher.point(f"{label} begins")
        with self.lock:
            self.labels.setdefault(idempotency_key(), set()).add(label)
            return self.random.choice([0, 0, 0.001, 0.003])


WATCH = Watch((), 0)


async def forget(result: str) -> None:
    await asyncio.sleep(WATCH.begin(result))
    WATCH.undone.append(result)


@step(name="interleaved.note", undo=forget)
async def note(label: str) -> str:
    await asyncio.sleep(WATCH.begin(label))
    WATCH.crasher.point(f"{label} has taken effect")
    return label


@step(name="interleaved.fail")
async def fail() -> None:
    raise ValueError("the end")


async def _branch(name: str) -> None:
    for i in range(4):
        await note(f"{name}{i}")


async def _beneath(depth: int, call: Callable[[], Awaitable[object]]) -> None:
    if depth == 0:
        await call()
    else:
        await asyncio.gather(_beneath(depth - 1, call))


async def _nested(depth: int) -> None:
    async def deep() -> None:
        for i in range(4):
            await _beneath(depth, lambda i=i: note(f"deep{i}"))

    await asyncio.gather(_branch("flat"), deep())


async def shallow() -> None:
    """One branch calls its steps beneath two gathers."""
    await _nested(2)


async def deep() -> None:
    """One branch calls its steps beneath ten gathers."""
    await _nested(10)


async def leisurely() -> None:
    """One branch lets the others go first many times before each step."""

    async def slow() -> None:
        for i in range(4):
            for _ in range(40):
                await asyncio.sleep(0)
            await note(f"slow{i}")

    await asyncio.gather(_branch("quick"), slow())


async def workers() -> None:
    """Three workers take what comes next from one queue."""
    work: asyncio.Queue[int] = asyncio.Queue()
    for i in range(7):
        work.put_nowait(i)

    async def worker(name: str) -> None:
        while not work.empty():
            await note(f"{name}{work.get_nowait()}")

    await asyncio.gather(*(worker(name) for name in "abc"))


async def pipeline() -> None:
    """One branch hands its results to another through a queue that holds one."""
    pipe: asyncio.Queue[str | None] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(4):
            await pipe.put(await note(f"made{i}"))
        await pipe.put(None)

    async def consume() -> None:
        while (made := await pipe.get()) is not None:
            await note(f"used-{made}")

    await asyncio.gather(produce(), consume())


async def background() -> None:
    """A task runs beside the body and is awaited at its end."""
    aside = asyncio.create_task(_branch("aside"))
    await _branch("main")
    await aside


async def guarded() -> None:
    """Branches take turns under a lock."""
    lock = asyncio.Lock()

    async def branch(name: str) -> None:
        for i in range(3):
            async with lock:
                await note(f"{name}{i}")
            await note(f"{name}{i}-free")

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(branch(name))


async def firsts() -> None:
    """Whichever of two ends first decides what comes next."""
    tasks = [asyncio.ensure_future(note(f"racer{i}")) for i in range(2)]
    while tasks:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in [t for t in tasks if t in done]:
            await note(f"after-{task.result()}")
        tasks = [t for t in tasks if t in pending]


SHAPES: dict[str, Callable[[], Awaitable[None]]] = {
    shape.__name__: shape
    for shape in (
        shallow,
        deep,
        leisurely,
        workers,
        pipeline,
        background,
        guarded,
        firsts,
    )
}


@sagas.saga(name="interleaved")
async def interleaved(shape: str) -> None:
    WATCH.crasher.enter()
    await SHAPES[shape]()
    await fail()


@pytest.fixture
def runner(config: dict[str, Any]) -> Iterator[None]:
    """A launched application that resumes crashed sagas at once."""
    with without_fsync(), sagas.launch(config, supervision=UNWATCHED):
        register_queue()
        yield


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_call_has_one_key_however_the_branches_interleave(shape: str, backend: str) -> None:
    """Whatever its branches wait for, a resumed saga finds for each call its own checkpoint."""
    global WATCH
    points = range(40) if ALL else range(0, 40, 3 if backend == "sqlite" else 8)
    for point in points:
        WATCH = Watch((point, (point * 7) % 23), seed=point)
        handle: SagaHandle[object] = interleaved.options(saga_id=f"{shape}-{point}").start(shape)
        assert run_to_its_end(handle, WATCH.crasher) is SagaStatus.FAILED
        several = {key: labels for key, labels in WATCH.labels.items() if len(labels) > 1}
        assert several == {}, f"crashed at {WATCH.crasher.crashes}"
        rows = DBOS.list_workflow_steps(handle.saga_id)
        outputs = [r["output"] for r in rows if r["function_name"] == "interleaved.note"]
        results = [o.result if isinstance(o, Retried) else o for o in outputs]
        assert sorted(results) == sorted(WATCH.undone)
        assert len(set(results)) == len(results)
        undos = [r["function_name"] for r in rows if r["function_name"].startswith("undo:")]
        ids = [r["function_id"] for r in rows if r["function_name"] == "interleaved.note"]
        assert undos == [f"undo:{i}:interleaved.note" for i in reversed(ids)]
