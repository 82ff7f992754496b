"""Starting sagas: by our ways and by DBOS's, under an ID, on a queue, from a loop or a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
from dbos import (
    DBOS,
    DBOSClient,
    SetWorkflowID,
    WorkflowSerializationFormat,
)

import sagas
from sagas import (
    SagaConflictError,
    SagaFailedError,
    SagaHandle,
    SagaStatus,
    SagaUsageError,
    saga,
)
from steps import step

from ..conftest import FAST
from .support import Crash, Ledger, resume, status, until

LEDGER = Ledger()
GATE = threading.Event()


@pytest.fixture(autouse=True)
def fresh_ledger() -> None:
    LEDGER.clear()
    GATE.clear()


@dataclass(frozen=True)
class Item:
    sku: str
    count: int


@dataclass(frozen=True)
class Order:
    number: int
    items: tuple[Item, ...] = ()


def undo(result: int) -> None:
    LEDGER.write(f"undo {result}")


@step(undo=undo)
def act(number: int) -> int:
    LEDGER.write(f"do {number}")
    return number


@step
def check(number: int) -> None:
    if number < 0:
        raise ValueError("negative")


@saga
def sync_saga(order: Order, note: str = "") -> str:
    act(order.number)
    check(order.number)
    return f"{order.number}{note}{len(order.items)}"


@step(undo=undo)
async def act_async(number: int) -> int:
    LEDGER.write(f"do {number}")
    return number


@step
async def check_async(number: int) -> None:
    check(number)


@saga
async def async_saga(order: Order, note: str = "") -> str:
    await act_async(order.number)
    await check_async(order.number)
    return f"{order.number}{note}{len(order.items)}"


@step
def wait_for_gate() -> None:
    GATE.wait(15)


@saga
def gated(order: Order) -> int:
    wait_for_gate()
    return order.number


BOTH: Any = pytest.mark.parametrize("which", [sync_saga, async_saga])
BAD = Order(-1)


@BOTH
def test_start_run_and_call_from_a_thread(shared_app: sagas.Launched, which: Any) -> None:
    """Without an event loop, sync and async sagas are started and awaited alike."""
    assert which.start(Order(1), note="x").result() == "1x0"
    assert which.run(Order(2, (Item("a", 1),))) == "21"
    with pytest.raises(SagaFailedError, match="negative"):
        which.run(BAD)
    assert LEDGER[-1] == "undo -1"


@BOTH
def test_start_and_run_on_a_loop(shared_app: sagas.Launched, which: Any) -> None:
    """On an event loop the _async twins start and await both kinds."""

    async def main() -> None:
        handle = await which.start_async(Order(1), note="x")
        assert await handle.result_async() == "1x0"
        assert await handle.status_async() is SagaStatus.COMPLETED
        assert (await handle.state_async()).steps[0].result == 1
        assert await which.run_async(Order(2)) == "20"
        with pytest.raises(SagaFailedError, match="negative"):
            await which.options(attributes={"a": 1}).run_async(BAD)

    asyncio.run(main())


def test_call(shared_app: sagas.Launched) -> None:
    """A saga that is called like its function runs, waits and returns."""
    assert sync_saga(Order(1)) == "10"
    with pytest.raises(SagaFailedError):
        sync_saga(BAD)

    async def main() -> None:
        assert await async_saga(Order(1)) == "10"
        with pytest.raises(SagaFailedError):
            await async_saga(BAD)

    asyncio.run(main())


@BOTH
def test_the_same_id_and_arguments_are_the_same_run(shared_app: sagas.Launched, which: Any) -> None:
    """Starting twice runs once, while it runs and after it has ended."""
    starter = which.options(saga_id=f"same-{which.name}")
    order = Order(3, (Item("a", 1), Item("b", 2)))
    first = starter.start(order)
    assert starter.start(Order(3, (Item("a", 1), Item("b", 2)))).result() == first.result()
    assert starter.run(order, "") == "32"
    assert starter.run(order=order) == "32"
    assert LEDGER == ["do 3"]


def test_other_arguments_or_another_saga_are_a_conflict(shared_app: sagas.Launched) -> None:
    """An ID that is taken by something else is refused, and nothing is started."""
    starter = sync_saga.options(saga_id="taken")
    starter.run(Order(4))
    for start in (
        lambda: starter.start(Order(5)),
        lambda: starter.start(Order(4), note="other"),
        lambda: async_saga.options(saga_id="taken").start(Order(4)),
        lambda: sync_saga.options(saga_id="taken", queue=FAST).start(Order(5)),
    ):
        with pytest.raises(SagaConflictError, match="taken"):
            start()
    assert LEDGER == ["do 4"]


def test_many_starts_at_once_run_once(shared_app: sagas.Launched) -> None:
    """Of concurrent starts under one ID one runs; all get its result."""
    starter = sync_saga.options(saga_id="race")
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(starter.run(Order(6)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["60"] * 8
    assert LEDGER == ["do 6"]


@BOTH
def test_on_a_queue(shared_app: sagas.Launched, which: Any) -> None:
    """With queue= it runs on a worker of that queue, after its delay, and unwinds there."""
    handle = which.options(queue=FAST, priority=1, attributes={"k": "v"}).start(Order(7))
    assert handle.result() == "70"
    assert handle.state().attributes == {"k": "v"}
    with pytest.raises(SagaFailedError):
        which.options(queue=FAST).run(BAD)
    assert LEDGER[-1] == "undo -1"
    delayed = which.options(queue=FAST, delay=0.3, deduplication_id=f"d-{which.name}")
    handle = delayed.start(Order(8))
    assert handle.status() is SagaStatus.STARTED
    with pytest.raises(SagaConflictError, match="deduplication"):
        delayed.start(Order(8))
    assert handle.result() == "80"


def test_an_unknown_queue_is_refused(shared_app: sagas.Launched) -> None:
    """A queue that nobody has registered would keep the saga for ever: it is refused."""
    with pytest.raises(SagaUsageError, match="nobody"):
        sync_saga.options(saga_id="q", queue="nobody").start(Order(1))
    assert DBOS.get_workflow_status("q") is None


@BOTH
def test_by_dbos_itself(shared_app: sagas.Launched, which: Any) -> None:
    """DBOS.start_workflow, a DBOS queue and SetWorkflowID run it, as a saga."""
    assert DBOS.start_workflow(which, Order(1)).get_result() == "10"
    with SetWorkflowID(f"by-dbos-{which.name}"):
        handle = DBOS.start_workflow(which, BAD)
    with pytest.raises(SagaFailedError):
        handle.get_result()
    assert LEDGER[-1] == "undo -1"
    assert DBOS.enqueue_workflow(FAST, which, Order(2)).get_result() == "20"

    async def on_a_loop() -> None:
        handle = await DBOS.start_workflow_async(which, Order(3))
        assert await handle.get_result() == "30"

    if which.is_async:
        asyncio.run(on_a_loop())
    else:
        with SetWorkflowID("called-by-id"):
            assert which(Order(9)) == "90"
        assert status("called-by-id") is SagaStatus.COMPLETED


@BOTH
def test_by_a_client_by_name(shared_app: sagas.Launched, which: Any) -> None:
    """DBOSClient.enqueue runs it by name, with pickled arguments or plain JSON."""
    client = DBOSClient(system_database_url=shared_app.config["system_database_url"])
    try:
        options: Any = {"queue_name": FAST, "workflow_name": which.name}
        assert client.enqueue(options, Order(1)).get_result() == "10"
        portable = {**options, "serialization_type": WorkflowSerializationFormat.PORTABLE}
        order = {"number": 5, "items": [{"sku": "a", "count": 1}]}
        assert client.enqueue(portable, order, note="n").get_result() == "5n1"
        saga_id = f"portable-{which.name}"
        client.enqueue({**portable, "workflow_id": saga_id}, {"number": -1})
        with pytest.raises(SagaFailedError) as caught:
            SagaHandle[str](saga_id).result()
    finally:
        client.destroy()
    assert caught.value.failure is not None
    assert caught.value.failure.message == "negative"
    assert [r.name for r in caught.value.undone] == ["act_async" if which.is_async else "act"]
    assert status(saga_id) is SagaStatus.FAILED


def test_json_that_fits_no_parameter_parks(shared_app: sagas.Launched) -> None:
    """Arguments that cannot be rebuilt run nothing; the saga is PARKED and names the field."""
    client = DBOSClient(system_database_url=shared_app.config["system_database_url"])
    try:
        client.enqueue(
            {
                "queue_name": FAST,
                "workflow_name": sync_saga.name,
                "workflow_id": "misfit",
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
            },
            {"number": 1, "itemz": []},
        )
        until(lambda: status("misfit") is SagaStatus.PARKED)
    finally:
        client.destroy()
    assert "itemz" in str(SagaHandle[str]("misfit").state().reason)
    assert LEDGER == []


def test_a_timeout_of_the_waiter_leaves_the_saga_running(shared_app: sagas.Launched) -> None:
    """result(timeout=) gives up waiting, not the saga."""
    handle = gated.start(Order(1))
    elsewhere = SagaHandle[int](handle.saga_id)
    for waiting in (handle, elsewhere):
        with pytest.raises(TimeoutError, match="goes on"):
            waiting.result(timeout=0.05)
    with pytest.raises(TimeoutError, match="goes on"):
        asyncio.run(handle.result_async(timeout=0.05))
    assert handle.status() is SagaStatus.PENDING
    (executing,) = handle.state().steps
    assert (executing.name, executing.status) == ("wait_for_gate", "executing")
    GATE.set()
    assert handle.result() == 1
    assert elsewhere.result(timeout=5) == 1


def test_a_cancelled_awaiter_leaves_the_saga_running(shared_app: sagas.Launched) -> None:
    """An awaiting task that is cancelled, as a web request is, does not end its saga."""

    async def main() -> None:
        release = asyncio.Event()

        @step
        async def waits() -> str:
            await release.wait()
            return "waited"

        @saga
        async def waiting() -> str:
            return await waits()

        task = asyncio.create_task(waiting.options(saga_id="cancelled").run_async())
        await asyncio.to_thread(until, lambda: DBOS.get_workflow_status("cancelled"))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        release.set()
        assert await SagaHandle[str]("cancelled").result_async(timeout=10) == "waited"

    asyncio.run(main())


def test_an_execution_that_was_not_created_here_knows_it(shared_app: sagas.Launched) -> None:
    """Starting an existing saga again, while it is recovered, leaves it knowing that."""
    from sagas import _engine

    seen: list[bool] = []
    original = _engine.SagaRun

    class Watching(original):
        def __init__(self, *args: Any, fresh: bool, **kwargs: Any) -> None:
            seen.append(fresh)
            super().__init__(*args, fresh=fresh, **kwargs)

    starters = [sync_saga.options(saga_id=f"fresh-{n}") for n in range(5)]
    for n, starter in enumerate(starters):
        LEDGER.crash_at(f"do {70 + n}")
        with pytest.raises(Crash):
            starter.start(Order(70 + n)).result()
    _engine.SagaRun = Watching
    try:
        for starter in starters:
            resume(str(starter._options.saga_id), to_end=False)
        deadline = time.monotonic() + 15
        while len(seen) < 5:
            assert time.monotonic() < deadline
            for n, starter in enumerate(starters):
                starter.start(Order(70 + n))
        for n, starter in enumerate(starters):
            assert starter.run(Order(70 + n)) == f"{70 + n}0"
    finally:
        _engine.SagaRun = original
    assert seen == [False] * 5


class Opaque:
    """Compares by identity."""


@saga
def takes_opaque(value: Any) -> str:
    return type(value).__name__


def test_arguments_that_do_not_compare_return_the_running_one(
    shared_app: sagas.Launched, caplog: pytest.LogCaptureFixture
) -> None:
    """Equal content, or content that cannot be compared, is no conflict; the latter is logged."""
    starter = takes_opaque.options(saga_id="opaque")
    assert starter.run([Opaque(), {8, 0}]) == "list"
    assert starter.run([Opaque(), {0, 8}]) == "list"
    assert "cannot be told" in caplog.text
    words = takes_opaque.options(saga_id="words")
    word = "ab"
    words.run((word, word))
    assert words.run((word, "".join(["a", "b"]))) == "tuple"
