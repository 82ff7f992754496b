"""What goes wrong when sagas are built on DBOS the obvious way. Each was seen; none may be here."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import (
    CompensationFailedError,
    SagaFailedError,
    SagaHandle,
    SagaParkedError,
    SagaStatus,
    SagaUsageError,
    saga,
)
from steps import OutcomeUnknownError, RetryPolicy, StepFailedError, step

from .support import Crash, Ledger, crash_and_resume, names, resume, status, until

LEDGER = Ledger()
SWITCH: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def fresh_ledger() -> None:
    LEDGER.clear()
    SWITCH.clear()


def undo(result: str) -> None:
    LEDGER.write(f"undo {result}")


async def undo_async(result: str) -> None:
    LEDGER.write(f"undo {result}")


@step(undo=undo)
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step(undo=undo_async)
async def act_async(name: str, seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    LEDGER.write(name)
    return name


@saga
async def own_clock() -> str:
    await act_async("a")
    async with asyncio.timeout(SWITCH["limit"]):
        await act_async("b", SWITCH["b takes"])
    await act_async("c")
    return "done"


def test_the_turn_is_durable(shared_app: sagas.Launched) -> None:
    """A saga that turned round for a reason that a replay does not see turns there again."""
    SWITCH.update({"limit": 0.05, "b takes": 0.3})
    LEDGER.crash_at("undo b")
    saga_id = "turn"
    own_clock.options(saga_id=saga_id).start()
    until(lambda: "undo b" in LEDGER)
    SWITCH.update({"limit": 60})
    until(lambda: not _running(saga_id))
    assert status(saga_id) is SagaStatus.COMPENSATING
    resume(saga_id)
    assert status(saga_id) is SagaStatus.FAILED
    assert LEDGER == ["a", "b", "undo b", "undo b", "undo a"]
    assert names(saga_id) == ["act_async", "act_async", "undo:2:act_async", "undo:1:act_async"]
    with pytest.raises(SagaFailedError) as caught:
        SagaHandle[str](saga_id).result()
    assert caught.value.failure is not None
    assert caught.value.failure.error_type == "TimeoutError"


def _running(saga_id: str) -> bool:
    from sagas import _running

    return _running.of(saga_id) is not None


@saga
def body_bug() -> str:
    act("a")
    if SWITCH.get("bug"):
        raise RuntimeError("a bug that is gone after the restart")
    act("b")
    return "done"


def test_a_turn_for_an_error_of_the_body_is_durable(shared_app: sagas.Launched) -> None:
    """Once it has turned round, a saga never goes forward again, whatever its body does."""
    SWITCH["bug"] = True
    LEDGER.crash_at("undo a")
    body_bug.options(saga_id="bug").start()
    until(lambda: "undo a" in LEDGER and not _running("bug"))
    SWITCH["bug"] = False
    resume("bug")
    assert status("bug") is SagaStatus.FAILED
    assert LEDGER == ["a", "undo a", "undo a"]


def test_a_turn_marked_by_a_superseded_execution_is_ignored(shared_app: sagas.Launched) -> None:
    """A mark that was written by an execution which had lost the saga does not turn it round."""
    LEDGER.crash_at("b")
    body_bug.options(saga_id="stale").start()
    until(lambda: "b" in LEDGER and not _running("stale"))
    mark = {"sagas.turn": {"at": 1, "error_type": "X", "message": "from a zombie"}}
    DBOS.update_workflow_attributes("stale", mark, merge=True)
    resume("stale")
    assert status("stale") is SagaStatus.COMPLETED
    assert LEDGER == ["a", "b", "b"]


class CardDeclined(Exception):
    """Pickles, but cannot be rebuilt."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Locked(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class Picky(Exception):
    """Keyword-only: pickles, but cannot be rebuilt."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@step
def pay(kind: str) -> None:
    LEDGER.write(f"pay {kind}")
    raise {
        "declined": CardDeclined(7, "declined"),
        "locked": Locked(),
        "picky": Picky(reason="so"),
    }[kind]


@saga
def pays(kind: str) -> None:
    act("a")
    try:
        pay(kind)
    except StepFailedError as error:
        LEDGER.write(f"caught {error.error_type.rpartition('.')[2]}")
        act("b")
    raise ValueError("end")


@pytest.mark.parametrize("kind", ["declined", "locked", "picky"])
def test_an_error_that_cannot_be_stored_is_the_same_live_and_replayed(
    shared_app: sagas.Launched, kind: str
) -> None:
    """The body gets such an error as plain data, live as on replay, and takes the same path."""
    crash_and_resume(pays.options(saga_id=kind), kind, ledger=LEDGER, at=["undo b"])
    assert status(kind) is SagaStatus.FAILED
    assert LEDGER.count(f"pay {kind}") == 1
    caught = [e for e in LEDGER if e.startswith("caught")]
    assert caught == [caught[0]] * 2
    assert LEDGER[-2:] == ["undo b", "undo a"]


@saga
def returns_a_lock() -> Any:
    act("a")
    return threading.Lock() if SWITCH.get("broken") else "fine"


@step(undo=undo)
def returns_lock() -> Any:
    LEDGER.write("lock")
    return threading.Lock() if SWITCH.get("broken") else "lock"


@saga
def step_returns_a_lock() -> str:
    act("a")
    returns_lock()
    return "fine"


@pytest.mark.parametrize("which", [returns_a_lock, step_returns_a_lock])
def test_a_result_that_cannot_be_stored_parks(shared_app: sagas.Launched, which: Any) -> None:
    """Nothing healthy is undone for a value that cannot be stored; the saga can go on later."""
    SWITCH["broken"] = True
    saga_id = which.name
    handle = which.options(saga_id=saga_id).start()
    with pytest.raises(SagaParkedError, match="cannot be stored"):
        handle.result()
    assert handle.status() is SagaStatus.PARKED
    assert not [e for e in LEDGER if e.startswith("undo")]
    with sagas.SagaClient() as client:
        assert [s.saga_id for s in client.list(status="PARKED")] == [saga_id]
        reason = client.get(saga_id).reason
    assert reason is not None
    assert "cannot be stored" in reason
    SWITCH["broken"] = False
    resume(saga_id)
    assert handle.status() is SagaStatus.COMPLETED
    assert handle.result() == "fine"


@saga
def changed_code() -> str:
    act("a")
    if SWITCH.get("changed"):
        try:
            other()
        except BaseException:
            LEDGER.write("fallback")
            return "fallback"
    else:
        act("b")
    act("c")
    return "done"


@step
def other() -> None:
    LEDGER.write("other")


def test_a_replay_that_does_not_match_parks(shared_app: sagas.Launched) -> None:
    """A body that swallows the mismatch gains nothing; back with its code, the saga goes on."""
    LEDGER.crash_at("c")
    changed_code.options(saga_id="m").start()
    until(lambda: "c" in LEDGER and not _running("m"))
    SWITCH["changed"] = True
    resume("m")
    assert status("m") is SagaStatus.PARKED
    assert LEDGER == ["a", "b", "c", "fallback"]
    SWITCH["changed"] = False
    resume("m")
    assert status("m") is SagaStatus.COMPLETED
    assert LEDGER == ["a", "b", "c", "fallback", "c"]


@saga
def ends_early() -> None:
    act("a")
    if not SWITCH.get("early"):
        act("b")
    raise ValueError("end")


def test_a_replay_that_ends_early_parks(shared_app: sagas.Launched) -> None:
    """A replay that did not come by every recorded step undoes nothing: it lacks an undo."""
    LEDGER.crash_at("undo b")
    ends_early.options(saga_id="e").start()
    until(lambda: "undo b" in LEDGER and not _running("e"))
    SWITCH["early"] = True
    resume("e")
    assert status("e") is SagaStatus.PARKED
    assert LEDGER == ["a", "b", "undo b"]
    SWITCH["early"] = False
    resume("e")
    assert status("e") is SagaStatus.FAILED
    assert LEDGER == ["a", "b", "undo b", "undo b", "undo a"]


@step
def unsure() -> str:
    if SWITCH.get("unsure"):
        raise OutcomeUnknownError("the connection broke \x00 after the request was sent \ud800")
    return "sure"


@saga
def may_be_unsure() -> str:
    act("a")
    return unsure()


def test_a_step_that_does_not_know_parks(shared_app: sagas.Launched) -> None:
    """OutcomeUnknownError parks: neither undoing nor skipping the step would be right."""
    SWITCH["unsure"] = True
    handle = may_be_unsure.options(saga_id="u").start()
    with pytest.raises(SagaParkedError, match="does not know whether"):
        handle.result()
    assert LEDGER == ["a"]
    SWITCH["unsure"] = False
    resume("u")
    assert handle.result() == "sure"


@saga
async def leaves_a_step_behind() -> str:
    SWITCH["task"] = asyncio.create_task(act_async("late", 0.2))
    await asyncio.sleep(0)
    return "done"


def test_a_saga_waits_for_what_it_began(shared_app: sagas.Launched) -> None:
    """A step that nobody awaited is done and recorded before the saga completes."""
    assert leaves_a_step_behind.options(saga_id="n").run() == "done"
    assert LEDGER == ["late"]
    assert names("n") == ["act_async"]


@step
async def fails_late() -> None:
    await asyncio.sleep(0.1)
    raise ValueError("late")


@saga
async def leaves_a_failure_behind() -> str:
    await act_async("a")
    SWITCH["task"] = asyncio.create_task(fails_late())
    await asyncio.sleep(0)
    return "done"


def test_a_failure_that_nobody_awaited_is_not_lost(shared_app: sagas.Launched) -> None:
    """A step that was left behind and failed turns the saga round."""
    with pytest.raises(SagaFailedError, match="late"):
        leaves_a_failure_behind.run()
    assert LEDGER == ["a", "undo a"]
    with pytest.raises(ValueError, match="late"):
        SWITCH["task"].result()


@saga
async def one_fails_early() -> None:
    await asyncio.gather(act_async("slow", 0.2), fails_at_once())


@step
async def fails_at_once() -> None:
    raise ValueError("at once")


def test_siblings_in_flight_settle_before_the_unwinding(shared_app: sagas.Launched) -> None:
    """A sibling that completes after the failure is undone too, and not before it has ended."""
    with pytest.raises(SagaFailedError):
        one_fails_early.run()
    assert LEDGER == ["slow", "undo slow"]


@saga
async def torn() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(act_async("slow", 0.2))
        group.create_task(breaks())


async def breaks() -> None:
    await asyncio.sleep(0.05)
    raise KeyError("a branch")


def test_a_cancelled_task_does_not_tear_its_step(shared_app: sagas.Launched) -> None:
    """A TaskGroup cancels its tasks; a step in one of them goes on, is recorded and undone."""
    with pytest.raises(SagaFailedError, match="a branch"):
        torn.options(saga_id="t").run()
    assert LEDGER == ["slow", "undo slow"]
    assert names("t") == ["act_async", "undo:1:act_async"]


@saga
async def both_fail() -> None:
    await asyncio.gather(fails_late(), fails_at_once())


def test_of_several_failures_the_first_step_is_reported(shared_app: sagas.Launched) -> None:
    """Which failure is reported is decided by step ID, not by who was faster."""
    with pytest.raises(SagaFailedError) as caught:
        both_fail.run()
    assert caught.value.failure is not None
    assert caught.value.failure.step == "fails_late"


@saga
async def swallows_cancellation() -> str:
    task = asyncio.create_task(act_async("a", 0.1))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    await act_async("b")
    return "done"


def test_a_step_whose_awaiter_was_cancelled_is_recorded(shared_app: sagas.Launched) -> None:
    """A body may cancel a task; the step in it is done all the same, before the next outcome."""
    assert swallows_cancellation.options(saga_id="w").run() == "done"
    assert sorted(LEDGER) == ["a", "b"]
    assert names("w") == ["act_async", "act_async"]


@saga
def two_then_end() -> None:
    act("a")
    act("b")
    raise ValueError("end")


def test_wiped_marks_do_not_undo_twice(shared_app: sagas.Launched) -> None:
    """Where an application wipes the marks, undos that are recorded are still not run again."""
    LEDGER.crash_at("undo a")
    two_then_end.options(saga_id="x").start()
    until(lambda: "undo a" in LEDGER and not _running("x"))
    DBOS.update_workflow_attributes("x", {"mine": 1})
    resume("x")
    assert status("x") is SagaStatus.FAILED
    assert LEDGER == ["a", "b", "undo b", "undo a", "undo a"]
    assert names("x").count("undo:2:act") == 1


def test_a_crash_in_each_undo_keeps_the_order(shared_app: sagas.Launched) -> None:
    """Killed in every undo in turn, a saga runs each to its record once, in order."""
    crash_and_resume(two_then_end.options(saga_id="y"), ledger=LEDGER, at=["undo b", "undo a"])
    assert LEDGER == ["a", "b", "undo b", "undo b", "undo a", "undo a"]
    assert names("y") == ["act", "act", "undo:2:act", "undo:1:act"]
    assert status("y") is SagaStatus.FAILED


@saga
def swallows_everything() -> str:
    act("a")
    try:
        act("b")
    except BaseException:
        LEDGER.write("swallowed")
    return "done"


def test_a_body_cannot_swallow_its_own_death(shared_app: sagas.Launched) -> None:
    """A crash in a step ends the execution although the body catches everything."""
    LEDGER.crash_at("b")
    handle = swallows_everything.options(saga_id="z").start()
    with pytest.raises(Crash):
        handle.result()
    assert handle.status() is SagaStatus.PENDING
    resume("z")
    assert handle.status() is SagaStatus.COMPLETED


@saga
async def late_call() -> str:
    async def later() -> None:
        await asyncio.sleep(0.05)
        try:
            await act_async("too late")
        except SagaUsageError as error:
            SWITCH["error"] = error

    SWITCH["task"] = asyncio.create_task(later())
    return "done"


def test_a_step_after_the_end_is_refused(shared_app: sagas.Launched) -> None:
    """A task that outlives its saga cannot add steps to it."""
    assert late_call.run() == "done"
    until(lambda: "error" in SWITCH)
    assert "had ended" in str(SWITCH["error"])
    assert LEDGER == []


@saga
async def forgets_a_failure() -> str:
    SWITCH["task"] = asyncio.create_task(fails_at_once())
    await act_async("a", 0.05)
    return "done"


def test_a_failure_in_a_task_that_nobody_looked_at_is_not_lost(
    shared_app: sagas.Launched,
) -> None:
    """A task that was forgotten and whose step failed turns the saga round, whenever it failed."""
    with pytest.raises(SagaFailedError, match="at once"):
        forgets_a_failure.run()
    assert LEDGER == ["a", "undo a"]


@saga
async def looks_at_a_failure() -> str:
    task = asyncio.create_task(fails_at_once())
    await act_async("a", 0.05)
    await asyncio.wait({task})
    return type(task.exception()).__name__


def test_a_failure_that_the_body_looked_at_is_its_own_affair(shared_app: sagas.Launched) -> None:
    """A task's error that the body has asked for unwinds nothing."""
    assert looks_at_a_failure.run() == "ValueError"
    assert LEDGER == ["a"]


@saga
async def forgets_to_await() -> str:
    await act_async("a")
    act_async("never awaited")
    return "done"


def test_a_step_that_is_never_awaited_is_no_success(shared_app: sagas.Launched) -> None:
    """A forgotten `await` is an error, not a step that is silently left out."""
    with pytest.raises(SagaFailedError, match="never awaited"):
        forgets_to_await.run()
    assert LEDGER == ["a", "undo a"]


@saga
async def returns_before_a_task_begins() -> str:
    SWITCH["task"] = asyncio.create_task(act_async("begun"))
    return "done"


def test_a_task_that_has_not_begun_is_waited_for(shared_app: sagas.Launched) -> None:
    """A step in a task that was made last is done before the saga completes."""
    assert returns_before_a_task_begins.run() == "done"
    assert LEDGER == ["begun"]


@saga
async def branches_in_some_order() -> None:
    async def branch(name: str) -> None:
        await act_async(name)

    order = "ab" if not SWITCH.get("swapped") else "ba"
    await asyncio.gather(*(branch(name) for name in order))
    await act_async("c")
    raise ValueError("end")


def test_branches_in_another_order_park(shared_app: sagas.Launched) -> None:
    """Branches that come to steps of one name in another order get no results of each other."""
    LEDGER.crash_at("c")
    branches_in_some_order.options(saga_id="branches").start()
    until(lambda: "c" in LEDGER and not _running("branches"))
    SWITCH["swapped"] = True
    resume("branches")
    assert status("branches") is SagaStatus.PARKED
    reason = SagaHandle[None]("branches").state().reason
    assert reason is not None
    assert "other arguments" in reason
    assert not [e for e in LEDGER if e.startswith("undo")]
    SWITCH["swapped"] = False
    resume("branches")
    assert status("branches") is SagaStatus.FAILED
    assert LEDGER[-3:] == ["undo c", "undo b", "undo a"]


def lambda_undo(result: str) -> Any:
    return undo_async(result)


@step(undo=lambda_undo)
async def act_with_lambda() -> str:
    return "lambda"


def stops_iteration(result: str) -> None:
    next(iter(()))


@step(undo=stops_iteration, undo_retry=RetryPolicy(max_attempts=2, first_delay=0))
async def act_stopping() -> str:
    return "stopping"


@saga
async def undone_by_an_awaitable() -> None:
    await act_with_lambda()
    raise ValueError("end")


@saga
async def undo_stops() -> None:
    await act_stopping()
    raise ValueError("end")


def test_an_undo_that_returns_an_awaitable_is_awaited(shared_app: sagas.Launched) -> None:
    """A plain function around an async one is an undo of an async step like any other."""
    with pytest.raises(SagaFailedError):
        undone_by_an_awaitable.run()
    assert LEDGER == ["undo lambda"]


def test_an_undo_that_raises_stop_iteration_fails(
    shared_app: sagas.Launched, caplog: pytest.LogCaptureFixture
) -> None:
    """No error of an undo can hang its saga, and each failed attempt is logged."""
    with pytest.raises(CompensationFailedError, match="StopIteration"):
        undo_stops.run()
    warnings = [r for r in caplog.records if r.levelname == "WARNING" and "attempt" in r.message]
    assert len(warnings) == 2


@step
async def exits() -> None:
    raise SystemExit(3)


@saga
async def exiting() -> None:
    await act_async("a")
    await exits()


def test_an_exit_in_a_step_is_its_failure(shared_app: sagas.Launched) -> None:
    """sys.exit() in a step neither ends the event loop nor the process."""
    with pytest.raises(SagaFailedError, match="SystemExit"):
        exiting.run()
    assert LEDGER == ["a", "undo a"]


class Row:
    """Pickles, but cannot be rebuilt."""

    def __reduce__(self) -> Any:
        return (Row, ("too", "many"))


@step(undo=undo)
def returns_row() -> Any:
    LEDGER.write("row")
    return Row() if SWITCH.get("broken") else "row"


@saga
def step_returns_a_row() -> str:
    act("a")
    returns_row()
    return "fine"


def test_a_result_that_cannot_be_read_again_parks(shared_app: sagas.Launched) -> None:
    """A result that pickles and does not come back is found live, not after a crash."""
    SWITCH["broken"] = True
    handle = step_returns_a_row.options(saga_id="row").start()
    with pytest.raises(SagaParkedError, match="cannot be stored"):
        handle.result()
    assert LEDGER == ["a", "row"]


@saga
def body_raises_cancelled() -> None:
    act("a")
    raise asyncio.CancelledError


def test_a_cancellation_raised_by_a_sync_body_is_a_failure(shared_app: sagas.Launched) -> None:
    """Nobody can have cancelled a thread: the error is the body's own."""
    with pytest.raises(SagaFailedError):
        body_raises_cancelled.run()
    assert LEDGER == ["a", "undo a"]
