"""Time limits of steps, and bodies that ignore them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import SagaFailedError, SagaHandle, SagaStatus, StepStatus, Supervision, _running, saga
from sagas._stop import Why
from steps import RetriesExhaustedError, RetryPolicy, StepTimeoutError, step

from .support import (
    UNWATCHED,
    Ledger,
    grace,
    has_left,
    names,
    resume,
    stop_mark,
    take_up,
    until,
    until_async,
)

LEDGER = Ledger()
SWITCH: dict[str, Any] = {}
LIMIT = 0.06
KINDS = ("sync", "async")


@pytest.fixture(scope="module")
def supervision() -> Supervision:
    return UNWATCHED


class Gate(threading.Event):
    """What a body waits for that ignores its limit; counts those that are through."""

    def __init__(self) -> None:
        super().__init__()
        self.began = 0
        self.ended = 0


GATE = Gate()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    LEDGER.clear()
    SWITCH.clear()
    GATE.clear()
    GATE.began = GATE.ended = 0
    yield
    GATE.set()
    until(lambda: GATE.ended == GATE.began)  # no body reaches into the next test


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


def late_end(saga_id: str) -> str:
    """What a body does that goes on when its time is up."""
    match SWITCH.get("late"):
        case "fail":
            raise LookupError("too late")
        case "send":
            DBOS.send(saga_id, "from the past", "late")
        case "step":
            nested()
    LEDGER.write("late")
    return "late"


@DBOS.step(name="limits.nested")
def nested() -> None:
    LEDGER.write("nested")


@DBOS.step(name="limits.nested_async")
async def nested_async() -> None:
    LEDGER.write("nested")


def is_stubborn() -> bool:
    """Whether this attempt ignores its limit: as a rule the first one."""
    GATE.began += 1
    return GATE.began <= int(SWITCH.get("stubborn", 1))


def ignore(saga_id: str) -> str:
    if not is_stubborn():
        GATE.ended += 1
        LEDGER.write("in time")
        return "in time"
    try:
        GATE.wait(20)
        return late_end(saga_id)
    finally:
        GATE.ended += 1


async def ignore_async(saga_id: str) -> str:
    if not is_stubborn():
        GATE.ended += 1
        LEDGER.write("in time")
        return "in time"
    try:
        while not GATE.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)
        if SWITCH.get("late") == "send":
            await DBOS.send_async(saga_id, "from the past", "late")
        elif SWITCH.get("late") == "step":
            await nested_async()
        if SWITCH.get("late") == "fail":
            raise LookupError("too late")
        LEDGER.write("late")
        return "late"
    finally:
        GATE.ended += 1


PATIENT = RetryPolicy(max_attempts=2, first_delay=600)
TWICE = RetryPolicy(max_attempts=2, first_delay=0)


@step(timeout=LIMIT, undo=undo, undo_when="completed")
def stubborn(saga_id: str) -> str:
    return ignore(saga_id)


@step(timeout=LIMIT, undo=undo, undo_when="completed")
async def stubborn_async(saga_id: str) -> str:
    return await ignore_async(saga_id)


@step(timeout=LIMIT, undo=undo, undo_when="completed", retry=TWICE)
def stubborn_twice(saga_id: str) -> str:
    return ignore(saga_id)


@step(timeout=LIMIT, undo=undo, undo_when="completed", retry=TWICE)
async def stubborn_twice_async(saga_id: str) -> str:
    return await ignore_async(saga_id)


@saga(name="time_limits.limited")
def limited(saga_id: str) -> str:
    act("a")
    (stubborn_twice if SWITCH.get("twice") else stubborn)(saga_id)
    return "done"


@saga(name="time_limits.limited_async")
async def limited_async(saga_id: str) -> str:
    await act_async("a")
    await (stubborn_twice_async if SWITCH.get("twice") else stubborn_async)(saga_id)
    return "done"


def one(kind: str, saga_id: str) -> Any:
    return (limited if kind == "sync" else limited_async).options(saga_id=saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_step_fails_and_stays_failed(shared_app: sagas.Launched, kind: str) -> None:
    """A time-out is the step's recorded outcome: a replay has it without running the body."""
    saga_id = f"late-{kind}"
    LEDGER.crash_at("undo a")
    with grace(0):
        one(kind, saga_id).start(saga_id)
        until(lambda: "undo a" in LEDGER and has_left(saga_id))
    assert GATE.began == 1
    GATE.set()
    until(lambda: GATE.ended == 1)
    take_up(saga_id)
    assert GATE.began == 1
    with pytest.raises(SagaFailedError) as caught:
        SagaHandle[str](saga_id).result()
    failure = caught.value.failure
    name = "stubborn" if kind == "sync" else "stubborn_async"
    assert failure is not None
    assert (failure.step, failure.step_id, failure.error_type) == (
        name,
        2,
        "steps.StepTimeoutError",
    )
    record = SagaHandle[str](saga_id).state().steps[1]
    assert (record.status, record.attempts) == (StepStatus.TIMED_OUT, 1)
    assert [r.name for r in caught.value.undone] == ["act" if kind == "sync" else "act_async"]
    # What the body did too late is in nobody's history.
    assert LEDGER == ["a", "undo a", "late", "undo a"]
    assert len(names(saga_id)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_that_of_each_attempt(shared_app: sagas.Launched, kind: str) -> None:
    """After an attempt that ran out of time the next one has all of the limit again."""
    SWITCH["twice"] = True
    saga_id = f"twice-{kind}"
    with grace(0):
        assert one(kind, saga_id).run(saga_id) == "done"
    assert LEDGER == ["a", "in time"]
    assert SagaHandle[str](saga_id).state().steps[1].attempts == 2


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_that_all_run_out_of_time(shared_app: sagas.Launched, kind: str) -> None:
    """The step fails with the time-outs of all its attempts."""
    SWITCH.update({"twice": True, "stubborn": 2})
    saga_id = f"all-late-{kind}"
    with grace(0), pytest.raises(SagaFailedError) as caught:
        one(kind, saga_id).run(saga_id)
    assert caught.value.failure is not None
    assert caught.value.failure.error_type.endswith("RetriesExhaustedError")
    recorded = DBOS.list_workflow_steps(saga_id)[1]["error"]
    assert isinstance(recorded, RetriesExhaustedError)
    assert [type(e) for e in recorded.errors] == [StepTimeoutError] * 2
    assert LEDGER == ["a", "undo a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_error_is_only_logged(
    shared_app: sagas.Launched, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a body that was left behind raises is told to nobody but the log."""
    SWITCH["late"] = "fail"
    saga_id = f"late-error-{kind}"
    with caplog.at_level(logging.WARNING, "sagas"):
        with grace(0), pytest.raises(SagaFailedError, match="did not end within"):
            one(kind, saga_id).run(saga_id)
        GATE.set()
        until(lambda: "LookupError('too late')" in caplog.text)
    assert "left behind" in caplog.text
    assert SagaHandle[str](saga_id).status() is SagaStatus.FAILED
    assert len(names(saga_id)) == 3


@step
def open_gate() -> str:
    """Let the body go on that was left behind, and wait for its end."""
    GATE.set()
    until(lambda: GATE.ended == 1)
    return "open"


@step
async def open_gate_async() -> str:
    GATE.set()
    await until_async(lambda: GATE.ended == 1)
    return "open"


@saga
def goes_on(saga_id: str) -> str:
    try:
        stubborn(saga_id)
    except StepTimeoutError:
        open_gate()
    return act("last")


@saga
async def goes_on_async(saga_id: str) -> str:
    try:
        await stubborn_async(saga_id)
    except StepTimeoutError:
        await open_gate_async()
    return await act_async("last")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", ["send", "step"])
def test_late_calls_of_dbos_stay_out_of_the_history(
    shared_app: sagas.Launched, kind: str, late: str
) -> None:
    """Whatever a body that was left behind asks of DBOS is recorded nowhere in the saga."""
    SWITCH["late"] = late
    saga_id = f"stray-{late}-{kind}"
    starter = (goes_on if kind == "sync" else goes_on_async).options(saga_id=saga_id)
    with grace(0):
        assert starter.run(saga_id) == "last"
    steps = ["stubborn", "open_gate", "act"]
    assert names(saga_id) == [s if kind == "sync" else f"{s}_async" for s in steps]
    assert [s.step_id for s in SagaHandle[str](saga_id).state().steps] == [1, 2, 3]
    assert (["nested"] if late == "step" else []) + ["late", "last"] == LEDGER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("then", ["unwinding", "attempt"])
def test_a_leftover_is_waited_for(shared_app: sagas.Launched, kind: str, then: str) -> None:
    """Neither unwinding nor another attempt begins before the late body has ended, in its grace."""
    SWITCH["twice"] = then == "attempt"
    saga_id = f"{then}-waits-{kind}"
    handle = one(kind, saga_id).start(saga_id)
    until(lambda: GATE.began == 1)
    threading.Timer(LIMIT + 0.2, GATE.set).start()
    until(lambda: handle.status().is_final)
    assert ["a", "late", *(["in time"] if then == "attempt" else ["undo a"])] == LEDGER


@pytest.mark.parametrize("kind", KINDS)
def test_a_leftover_is_not_waited_for_for_ever(shared_app: sagas.Launched, kind: str) -> None:
    """The saga goes on without it when the grace is over."""
    saga_id = f"bounded-{kind}"
    began = time.monotonic()
    with grace(0.3), pytest.raises(SagaFailedError):
        one(kind, saga_id).run(saga_id)
    assert 0.3 <= time.monotonic() - began < 4.5  # the default is 5
    assert GATE.ended == 0
    assert LEDGER == ["a", "undo a"]


def found_nothing(saga_id: str) -> Any:
    LEDGER.write("probe")
    return "found"


@step(timeout=LIMIT, undo=undo, probe=found_nothing)
def stubborn_probed(saga_id: str) -> str:
    return ignore(saga_id)


@step(timeout=LIMIT, undo=undo, probe=found_nothing)
async def stubborn_probed_async(saga_id: str) -> str:
    return await ignore_async(saga_id)


@saga
def probed(saga_id: str) -> str:
    return stubborn_probed(saga_id)


@saga
async def probed_async(saga_id: str) -> str:
    return await stubborn_probed_async(saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_is_asked_after_the_leftover(shared_app: sagas.Launched, kind: str) -> None:
    """A probe that looked before the late effect would not find it."""
    saga_id = f"probe-waits-{kind}"
    handle = (probed if kind == "sync" else probed_async).options(saga_id=saga_id).start(saga_id)
    until(lambda: GATE.began == 1)
    threading.Timer(LIMIT + 0.2, GATE.set).start()
    assert handle.result() == "found"
    assert LEDGER == ["late", "probe"]


@step(undo=undo, retry=RetryPolicy(max_attempts=3, first_delay=0, backoff=1))
async def fails_twice(name: str) -> str:
    SWITCH[name] = SWITCH.get(name, 0) + 1
    if SWITCH[name] < 3:
        await until_async(lambda: "stubborn is late" in SWITCH)
        raise LookupError(name)
    LEDGER.write(name)
    return name


@step(timeout=LIMIT, retry=RetryPolicy(max_attempts=2, first_delay=0.2))
async def stubborn_for_long(saga_id: str) -> str:
    return await ignore_async(saga_id)


@step(timeout=LIMIT, undo=undo, undo_when="attempted", retry=PATIENT)
def stubborn_patient(saga_id: str) -> str:
    return ignore(saga_id)


@step(timeout=LIMIT, undo=undo, undo_when="attempted", retry=PATIENT)
async def stubborn_patient_async(saga_id: str) -> str:
    return await ignore_async(saga_id)


@saga
def superseded(saga_id: str) -> None:
    act("a")
    stubborn_patient(saga_id)


@saga
async def superseded_async(saga_id: str) -> None:
    await act_async("a")
    await stubborn_patient_async(saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_an_execution_that_lost_its_saga_waits_for_its_leftover(
    shared_app: sagas.Launched, kind: str
) -> None:
    """Nobody undoes a step while a late body of it can still take effect."""
    saga_id = f"superseded-{kind}"
    (superseded if kind == "sync" else superseded_async).options(saga_id=saga_id).start(saga_id)
    until(lambda: (run := _running.of(saga_id)) is not None and run.leftovers)  # type: ignore[attr-defined]
    DBOS.cancel_workflow(saga_id)
    run = _running.of(saga_id)
    assert run is not None
    run.fence("it was stopped in DBOS")
    threading.Timer(0.2, GATE.set).start()
    until(lambda: has_left(saga_id))
    assert LEDGER == ["a", "late"]
    take_up(saga_id, stop_mark(Why.DBOS_CANCEL))
    assert LEDGER == ["a", "late", "undo None", "undo a"]


@saga
async def side_by_side(saga_id: str) -> str:
    await asyncio.gather(stubborn_for_long(saga_id), fails_twice("b"))
    return "done"


class Late(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "left behind" in record.getMessage():
            SWITCH["stubborn is late"] = True


def test_each_attempt_waits_for_its_own_leftover(shared_app: sagas.Launched) -> None:
    """Another step's attempt that waits for a late body does not take it from its own step."""
    handler = Late()
    logging.getLogger("sagas").addHandler(handler)
    try:
        handle = side_by_side.options(saga_id="side").start("side")
        until(lambda: "stubborn is late" in SWITCH)
        threading.Timer(0.5, GATE.set).start()
        assert handle.result() == "done"
    finally:
        logging.getLogger("sagas").removeHandler(handler)
    assert LEDGER.index("late") < LEDGER.index("in time")


@saga
async def group(saga_id: str) -> str:
    results = await asyncio.gather(
        act_async("a"), stubborn_async(saga_id), act_async("c"), return_exceptions=True
    )
    assert isinstance(results[1], StepTimeoutError)
    LEDGER.write("went on")
    raise ValueError("end")


def test_a_late_step_in_a_group(shared_app: sagas.Launched) -> None:
    """In a group only the late step times out; what stands of the others is undone in order."""
    LEDGER.crash_at("undo c")
    with grace(0):
        group.options(saga_id="group").start("group")
        until(lambda: "undo c" in LEDGER and has_left("group"))
        resume("group")
    assert sorted(LEDGER[:2]) == ["a", "c"]
    assert LEDGER[2:] == ["went on", "undo c", "went on", "undo c", "undo a"]
    assert names("group") == [
        "act_async",
        "stubborn_async",
        "act_async",
        "undo:3:act_async",
        "undo:1:act_async",
    ]


@step(timeout=LIMIT, undo=undo, undo_when="completed")
def starts_a_saga(saga_id: str) -> str:
    limited.options(saga_id="inner").start("inner")
    return "started"


@saga
def nests(saga_id: str) -> str:
    return starts_a_saga(saga_id)


def test_a_saga_in_a_timed_step_is_refused(shared_app: sagas.Launched) -> None:
    """A step with a limit is a step like any other: no saga can be started in it."""
    with pytest.raises(SagaFailedError, match="called in a step"):
        nests.options(saga_id="nests").run("nests")


@step(timeout=5)
async def starts_by_dbos() -> str:
    with SetWorkflowID("by-dbos"):
        handle = await DBOS.start_workflow_async(fails_after_a)
    return str(handle.workflow_id)


@saga
async def fails_after_a() -> None:
    await act_async("a")
    raise ValueError("end")


@saga
async def nests_by_dbos() -> str:
    return await starts_by_dbos()


def test_a_saga_that_dbos_starts_in_a_timed_step(shared_app: sagas.Launched) -> None:
    """It is a saga of its own: its steps are recorded, and undone."""
    assert nests_by_dbos.options(saga_id="outer").run() == "by-dbos"
    until(lambda: SagaHandle[None]("by-dbos").status().is_final)
    assert names("outer") == ["starts_by_dbos"]
    assert names("by-dbos") == ["act_async", "undo:1:act_async"]
    assert LEDGER == ["a", "undo a"]


def undo_stubbornly(result: str) -> None:
    GATE.began += 1
    if GATE.began == 1:
        GATE.wait(20)
        LEDGER.write("late undo")
    LEDGER.write("undone")
    GATE.ended += 1


@step(undo=undo_stubbornly, undo_timeout=0.5, undo_retry=RetryPolicy(max_attempts=2, first_delay=0))
def undone_late(name: str) -> str:
    return name


@saga
def undone_in_time() -> None:
    undone_late("x")
    raise ValueError("end")


def test_the_grace_of_an_undo_is_the_one_that_was_set(shared_app: sagas.Launched) -> None:
    """An undo that ignores its limit is given the same grace before it is tried again."""
    with grace(0), pytest.raises(SagaFailedError):
        began = time.monotonic()
        undone_in_time.run()
    assert time.monotonic() - began < 0.9
    assert LEDGER == ["undone"]
