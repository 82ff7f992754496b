"""Waits of sagas: for messages, and for time to pass."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import (
    SagaCancelledError,
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaStatus,
    SagaTimeoutError,
    Supervision,
    _running,
    saga,
)
from sagas import _dbos as adapter
from sagas._stop import Stop, Why
from sagas._waiting import sentinel
from steps import (
    StepError,
    StepTimeoutError,
    receive,
    receive_async,
    sleep,
    sleep_async,
    step,
)

from .support import (
    UNWATCHED,
    Ledger,
    has_left,
    names,
    status,
    stop_mark,
    take_up,
    until,
    until_async,
)

LEDGER = Ledger()
SWITCH: dict[str, Any] = {}
KINDS = ("sync", "async")


@pytest.fixture(scope="module")
def supervision() -> Supervision:
    return UNWATCHED


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    LEDGER.died.clear()
    SWITCH.clear()


@pytest.fixture
def client(shared_app: sagas.Launched) -> Iterator[SagaClient]:
    with SagaClient() as found:
        yield found


_numbers = itertools.count()


def new_id() -> str:
    return f"wait-{next(_numbers)}"


def undo(result: str) -> None:
    LEDGER.write(f"undo {result}")


@step(undo=undo)
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step(undo=undo)
async def act_async(name: str) -> str:
    LEDGER.write(name)
    return name


Plan = list[Any]
"""
What a saga does: text is a step; a tuple is a wait on a topic with a limit, or for seconds; None
as a topic sleeps. What came is written to the ledger.
"""


@saga
def follows(plan: Plan) -> list[Any]:
    got: list[Any] = []
    for what in plan:
        if isinstance(what, str):
            act(what)
        elif what[0] is None:
            sleep(what[1])
            LEDGER.write("slept")
        else:
            got.append(receive(what[0], timeout=what[1]))
            LEDGER.write(f"got {got[-1]}")
    return got


@saga
async def follows_async(plan: Plan) -> list[Any]:
    got: list[Any] = []
    for what in plan:
        if isinstance(what, str):
            await act_async(what)
        elif what[0] is None:
            await sleep_async(what[1])
            LEDGER.write("slept")
        else:
            got.append(await receive_async(what[0], timeout=what[1]))
            LEDGER.write(f"got {got[-1]}")
    return got


def start(kind: str, plan: Plan, saga_id: str | None = None, **options: Any) -> SagaHandle[Any]:
    definition: Any = follows if kind == "sync" else follows_async
    handle = definition.options(saga_id=saga_id or new_id(), **options).start(plan)
    return SagaHandle(handle.saga_id)


def waits(saga_id: str) -> bool:
    """Whether the saga is in a wait, and DBOS has begun it."""
    run: Any = _running.of(saga_id)
    return run is not None and run.waiting is not None and "DBOS.sleep" in names(saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_messages_before_and_after_the_wait_began(client: SagaClient, kind: str) -> None:
    """What was sent before is there at once, what is sent later ends the wait; in order."""
    saga_id = new_id()
    LEDGER.crash_at("a")
    handle = start(kind, ["a", ("t", None), ("t", 60), ("t", None)], saga_id)
    until(lambda: LEDGER.died and has_left(saga_id))
    client.send(saga_id, "t", 1)
    client.send(saga_id, "t", 2)
    take_up(saga_id, to_end=False)
    until(lambda: "got 2" in LEDGER)
    until(lambda: getattr(_running.of(saga_id), "waiting", None))
    client.send(saga_id, "t", 3)
    assert handle.result(timeout=15) == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_each_topic_has_messages_of_its_own(client: SagaClient, kind: str) -> None:
    """A wait takes nothing of another topic's, whenever that was sent."""
    handle = start(kind, [("x", None), ("y", None), ("x", None)])
    for topic, message in (("y", "y1"), ("x", "x1"), ("x", "x2")):
        client.send(handle.saga_id, topic, message)
    assert handle.result(timeout=15) == ["x1", "y1", "x2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("message", [None, 0, {"a": 1}, [None]])
def test_any_message_arrives_as_it_was(client: SagaClient, kind: str, message: Any) -> None:
    """None is a message like any other."""
    handle = start(kind, [("t", 60)])
    client.send(handle.saga_id, "t", message)
    assert handle.result(timeout=15) == [message]


@pytest.mark.parametrize("kind", KINDS)
def test_each_message_once_through_crashes(client: SagaClient, kind: str) -> None:
    """Crashes before a wait, in it and after it lose no message, and take none twice."""
    LEDGER.crash_at("a", "got 1", "b", "got 2")
    handle = start(kind, ["a", ("t", None), "b", ("t", None), "c"])
    saga_id = handle.saga_id
    client.send(saga_id, "t", 1)
    for n in range(1, 5):
        until(lambda n=n: len(LEDGER.died) == n and has_left(saga_id))
        if n == 3:
            client.send(saga_id, "t", 2)
        take_up(saga_id, to_end=False)
    assert handle.result(timeout=15) == [1, 2]
    assert LEDGER[-3:] == ["got 1", "got 2", "c"]
    name = "act" if kind == "sync" else "act_async"
    assert [n for n in names(saga_id) if n.startswith("act")] == [name] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_that_runs_out_of_time(shared_app: sagas.Launched, kind: str) -> None:
    """Without a message in time it fails the saga, which tells of it; a body may handle it."""
    handle = start(kind, ["a", ("t", 0.05), "b"])
    with pytest.raises(SagaFailedError, match=r"receive\('t'\)") as caught:
        handle.result(timeout=15)
    failure = caught.value.failure
    assert failure is not None
    assert (failure.step, failure.step_id) == ("receive", 3)
    assert failure.error_type == "steps.StepTimeoutError"
    assert LEDGER == ["a", "undo a"]


@saga
def patient() -> str:
    try:
        receive("t", timeout=timedelta(milliseconds=30))
    except StepTimeoutError as error:
        act(f"{error.name} {error.timeout:g}")
    return str(receive("t", timeout=0)) if SWITCH.get("again") else "nobody"


def test_a_body_can_go_on_without_a_message(shared_app: sagas.Launched) -> None:
    """A time-out of a wait is an error like any other, live and in a replay."""
    saga_id = new_id()
    LEDGER.crash_at("receive('t') 0.03")
    patient.options(saga_id=saga_id).start()
    until(lambda: LEDGER.died and has_left(saga_id))
    take_up(saga_id)
    assert SagaHandle[str](saga_id).result() == "nobody"
    assert LEDGER == ["receive('t') 0.03"] * 2


# --- stopped in a wait


PLANS: dict[str, Plan] = {"receive": ["a", ("t", None), "b"], "sleep": ["a", (None, 3600), "b"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["receive", "sleep"])
@pytest.mark.parametrize("stop", ["cancel", "deadline"])
def test_a_stop_ends_a_wait_at_once(client: SagaClient, kind: str, what: str, stop: str) -> None:
    """A cancel request and the deadline end it; that is recorded, and the saga unwinds."""
    handle = start(kind, PLANS[what], timeout=0.3 if stop == "deadline" else None)
    if stop == "cancel":
        until(lambda: waits(handle.saga_id))
        client.cancel(handle.saga_id, "enough")
    with pytest.raises(SagaTimeoutError if stop == "deadline" else SagaCancelledError) as caught:
        handle.result(timeout=10)
    assert LEDGER == ["a", "undo a"]
    assert caught.value.failure is not None
    assert (caught.value.failure.step, caught.value.failure.step_id) == (what, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["receive", "sleep"])
def test_a_stopped_wait_in_a_replay(client: SagaClient, kind: str, what: str) -> None:
    """After a crash in the unwinding the wait ends as it did, without waiting."""
    LEDGER.crash_at("undo a")
    handle = start(kind, PLANS[what])
    until(lambda: waits(handle.saga_id))
    client.cancel(handle.saga_id, "enough")
    until(lambda: LEDGER.died and has_left(handle.saga_id))
    take_up(handle.saga_id)
    assert LEDGER == ["a", "undo a", "undo a"]
    assert handle.status() is SagaStatus.FAILED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["receive", "sleep"])
@pytest.mark.parametrize("stop", ["cancel", "deadline"])
def test_a_stop_that_came_while_nobody_waited(
    shared_app: sagas.Launched, kind: str, what: str, stop: str
) -> None:
    """A saga that died in its wait and was stopped meanwhile turns round in that wait."""
    handle = start(kind, PLANS[what])
    kill_in_wait(handle.saga_id)
    marks = stop_mark(Why.CANCEL) if stop == "cancel" else {"sagas.timeout": 0.001}
    take_up(handle.saga_id, marks)
    with pytest.raises(SagaTimeoutError if stop == "deadline" else SagaCancelledError):
        handle.result(timeout=10)
    assert LEDGER == ["a", "undo a"]


def kill_in_wait(saga_id: str) -> None:
    """End an execution that waits, as if its process had died."""
    until(lambda: waits(saga_id))
    run = _running.of(saga_id)
    assert run is not None
    run.fence("a test kills it")
    until(lambda: has_left(saga_id))


@saga(name="waits.swallows")
def swallows() -> str:
    act("a")
    try:
        receive("t")
    except Exception as error:
        LEDGER.write(type(error).__name__)
    return "done"


@saga
async def swallows_async() -> str:
    await act_async("a")
    try:
        await receive_async("t")
    except Exception as error:
        LEDGER.write(type(error).__name__)
    return "done"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_in_a_wait_cannot_be_swallowed(client: SagaClient, kind: str) -> None:
    """A body that catches it and returns is unwound all the same, after a crash too."""
    saga_id = new_id()
    LEDGER.crash_at("undo a")
    (swallows if kind == "sync" else swallows_async).options(saga_id=saga_id).start()
    until(lambda: waits(saga_id))
    client.cancel(saga_id)
    until(lambda: LEDGER.died and has_left(saga_id))
    take_up(saga_id)
    once = ["SagaCancelledError", "undo a"]
    assert ["a", *once, *once] == LEDGER
    assert status(saga_id) is SagaStatus.FAILED


def foreign(wait_id: int) -> dict[str, Any]:
    return sentinel(wait_id, Stop(Why.CANCEL, "of another wait"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sentinel_of_another_wait_is_ignored(client: SagaClient, kind: str) -> None:
    """A message that was faster than the sentinel wins; the next wait is not ended by it."""
    handle = start(kind, [("t", None), ("t", None), "b"])
    until(lambda: waits(handle.saga_id))
    client.send(handle.saga_id, "t", "first")
    adapter.outside(adapter.send, handle.saga_id, foreign(2), "t")
    until(lambda: names(handle.saga_id).count("DBOS.recv") == 2)
    until(lambda: waits(handle.saga_id))
    client.send(handle.saga_id, "t", "second")
    assert handle.result(timeout=15) == ["first", "second"]
    assert LEDGER == ["got first", "got second", "b"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_an_ignored_sentinel_does_not_prolong_a_wait(shared_app: sagas.Launched, kind: str) -> None:
    """The limit of a wait counts from its first beginning, through sentinels and crashes."""
    handle = start(kind, ["a", ("t", 1.5)])
    saga_id = handle.saga_id
    until(lambda: waits(saga_id))
    adapter.outside(adapter.send, saga_id, foreign(77), "t")
    until(lambda: names(saga_id).count("DBOS.recv") == 1)
    until(lambda: names(saga_id).count("DBOS.sleep") == 2)
    rows = DBOS.list_workflow_steps(saga_id)
    first, second = [r["output"] for r in rows if r["function_name"] == "DBOS.sleep"]
    assert second == pytest.approx(first, abs=0.2)
    kill_in_wait(saga_id)
    take_up(saga_id)
    with pytest.raises(SagaFailedError, match=r"did not end within 1.5 s"):
        handle.result()
    assert time.time() >= first
    rows = DBOS.list_workflow_steps(saga_id)
    ends = [r["output"] for r in rows if r["function_name"] == "DBOS.sleep"]
    assert ends == pytest.approx([first] * len(ends), abs=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_sleep_goes_on_where_it_was(shared_app: sagas.Launched, kind: str) -> None:
    """After a restart only the rest is slept: the end was recorded when it began."""
    handle = start(kind, ["a", (None, 1.5), "b"])
    saga_id = handle.saga_id
    kill_in_wait(saga_id)
    (end,) = [
        r["output"] for r in DBOS.list_workflow_steps(saga_id) if r["function_name"] == "DBOS.sleep"
    ]
    take_up(saga_id, to_end=False)
    until(lambda: waits(saga_id) or handle.status().is_final)
    assert handle.result(timeout=20) == []
    assert LEDGER == ["a", "slept", "b"]
    rows = DBOS.list_workflow_steps(saga_id)
    ends = [r["output"] for r in rows if r["function_name"] == "DBOS.sleep"]
    assert ends == pytest.approx([end] * len(ends), abs=0.05)
    (b,) = [r for r in rows if r["function_id"] == max(r["function_id"] for r in rows)]
    assert b["started_at_epoch_ms"] / 1000 == pytest.approx(end, abs=0.9)
    assert b["started_at_epoch_ms"] / 1000 >= end - 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_wait_that_ended_live_nothing_is_in_doubt(client: SagaClient, kind: str) -> None:
    """A step behind a wait that nobody had got through cannot have been begun: it is not run."""
    handle = start(kind, ["a", ("t", None), "b"])
    saga_id = handle.saga_id
    kill_in_wait(saga_id)
    LEDGER.clear()
    take_up(saga_id, to_end=False)
    until(lambda: names(saga_id).count("DBOS.sleep") > names(saga_id).count("DBOS.recv"))
    until(lambda: waits(saga_id))
    run: Any = _running.of(saga_id)
    run.request = Stop(Why.CANCEL, "enough")  # noticed when the message is there
    client.send(saga_id, "t", 1)
    with pytest.raises(SagaCancelledError):
        handle.result(timeout=15)
    assert LEDGER == ["got 1", "undo a"]


# --- refused


@saga
async def in_a_group(how: str) -> str:
    async def branch() -> Any:
        return await receive_async("t", timeout=5)

    if how == "gather":
        await asyncio.gather(act_async("a"), branch())
    elif how == "two":
        await asyncio.gather(receive_async("t", timeout=5), receive_async("t", timeout=5))
    elif how == "task":
        task = asyncio.create_task(act_async("a"))
        try:
            await receive_async("t", timeout=5)
        finally:
            await task
    elif how == "sleep":
        await asyncio.gather(act_async("a"), sleep_async(5))
    elif how == "step beside":
        waiting = asyncio.current_task()
        assert waiting is not None

        async def beside() -> None:
            await until_async(lambda: SWITCH["run"]().waiting)
            try:
                await act_async("beside")
            except Exception as error:
                LEDGER.write(type(error).__name__)

        task = asyncio.create_task(beside())
        await receive_async("t", timeout=0.3)
        await task
    return "done"


@pytest.mark.parametrize("how", ["gather", "two", "task", "sleep"])
def test_a_wait_beside_something_else_is_refused(shared_app: sagas.Launched, how: str) -> None:
    """It would hold up the others, and what comes first would depend on timing."""
    with pytest.raises(SagaFailedError, match="SagaUsageError"):
        in_a_group.options(saga_id=new_id()).run(how)
    assert ([] if how == "two" else ["a", "undo a"]) == LEDGER


def test_a_step_beside_a_wait_is_refused(shared_app: sagas.Launched) -> None:
    """While a saga waits, it does nothing else."""
    saga_id = new_id()
    SWITCH["run"] = lambda: _running.of(saga_id)
    with pytest.raises(SagaFailedError):
        in_a_group.options(saga_id=saga_id).run("step beside")
    assert LEDGER == ["SagaUsageError"]


@step
def waits_in_step(how: str) -> None:
    if how == "receive":
        receive("t", timeout=0)
    else:
        sleep(0)


@step(timeout=5)
def waits_in_timed_step(how: str) -> None:
    waits_in_step(how)


@saga
def steps_that_wait(how: str, timed: bool) -> None:
    (waits_in_timed_step if timed else waits_in_step)(how)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("how", ["receive", "sleep"])
def test_a_wait_in_a_step_is_refused(shared_app: sagas.Launched, how: str, timed: bool) -> None:
    """A step is one action, with a limit or without."""
    with pytest.raises(SagaFailedError, match="in a step"):
        steps_that_wait.options(saga_id=new_id()).run(how, timed)


@saga
async def blocks(how: str) -> None:
    receive("t", timeout=0) if how == "receive" else sleep(0)


@saga
def awaits(how: str) -> None:
    asyncio.run(receive_async("t", timeout=0) if how == "receive" else sleep_async(0))


@pytest.mark.parametrize("how", ["receive", "sleep"])
@pytest.mark.parametrize("definition", [blocks, awaits])
def test_the_wrong_twin_is_refused(shared_app: sagas.Launched, definition: Any, how: str) -> None:
    """A blocking wait in an async saga, and the other way round, say what to use."""
    with pytest.raises(SagaFailedError, match="SagaUsageError"):
        definition.options(saga_id=new_id()).run(how)


def test_waits_outside_a_saga_are_refused(shared_app: sagas.Launched) -> None:
    """There is nobody to send a message to, and nothing that would be durable."""
    for wait in (lambda: receive("t"), lambda: sleep(1)):
        with pytest.raises(StepError, match="outside a saga"):
            wait()
    for wait_async in (lambda: receive_async("t"), lambda: sleep_async(1)):
        with pytest.raises(StepError, match="outside a saga"):
            asyncio.run(wait_async())


@DBOS.workflow(name="waits.plain")
def plain(how: str) -> Any:
    if how == "sleep":
        return sleep(0.01)
    return receive("t", timeout=0.05 if how == "late" else None)


@DBOS.workflow(name="waits.plain_async")
async def plain_async(how: str) -> Any:
    if how == "sleep":
        return await sleep_async(0.01)
    return await receive_async("t", timeout=0.05 if how == "late" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_waits_in_a_plain_workflow(shared_app: sagas.Launched, kind: str) -> None:
    """There they are DBOS's own."""

    def begin(how: str) -> Callable[[], Any]:
        with SetWorkflowID(new_id()):
            if kind == "sync":
                return DBOS.start_workflow(plain, how).get_result
            outcome: list[Any] = []

            async def main() -> Any:
                handle = await DBOS.start_workflow_async(plain_async, how)
                if how == "message":
                    await DBOS.send_async(handle.workflow_id, "hello", "t")
                return await handle.get_result()

            def run() -> Any:
                outcome.append(asyncio.run(main()))
                return outcome[0]

            return run

    assert begin("sleep")() is None
    with pytest.raises(StepTimeoutError):
        begin("late")()
    if kind == "sync":
        saga_id = new_id()
        with SetWorkflowID(saga_id):
            handle = DBOS.start_workflow(plain, "message")
        DBOS.send(saga_id, "hello", "t")
        assert handle.get_result() == "hello"
    else:
        assert begin("message")() == "hello"


def test_nothing_of_a_wait_is_left_behind(client: SagaClient) -> None:
    """A wait that has ended keeps no thread."""
    before = threading.active_count()
    handles = [start("sync", [("t", None)]) for _ in range(5)]
    for handle in handles:
        until(lambda handle=handle: waits(handle.saga_id))
        client.cancel(handle.saga_id)
    for handle in handles:
        with pytest.raises(SagaCancelledError):
            handle.result(timeout=15)
    workers = [t for t in threading.enumerate() if t.name.startswith("sagas-")]
    assert threading.active_count() <= before + 5 + len(workers)
