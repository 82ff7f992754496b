"""The time limit of a saga: a durable deadline, past which it turns round."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import (
    SagaHandle,
    SagaStatus,
    SagaTimeoutError,
    Supervision,
    _running,
    saga,
)
from steps import RetryPolicy, step
from steps.abc import current_recorder

from ..conftest import FAST
from .support import UNWATCHED, Ledger, has_left, names, resume, status, take_up, until, until_async

LEDGER = Ledger()
SWITCH: dict[str, Any] = {}
KINDS = ("sync", "async")
LIMIT = 0.25


@pytest.fixture(scope="module")
def supervision() -> Supervision:
    return UNWATCHED


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    LEDGER.clear()
    LEDGER.died.clear()
    SWITCH.clear()
    SWITCH["gate"] = threading.Event()
    yield
    SWITCH["gate"].set()


def undo(result: str) -> None:
    LEDGER.write(f"undo {result}")


def past_deadline() -> bool:
    """Whether the saga that runs here has run out of time."""
    return bool(time.time() > SWITCH["deadline"])


def run_here() -> Any:
    return current_recorder.get()


def deadline() -> float:
    found = run_here().deadline
    SWITCH["deadline"] = found
    return float(found)


@step(undo=undo)
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step(undo=undo)
async def act_async(name: str) -> str:
    LEDGER.write(name)
    return name


@step(undo=undo)
def outlast(name: str) -> str:
    """A step that is in flight when the deadline passes."""
    while not past_deadline():
        time.sleep(0.005)
    LEDGER.write(name)
    return name


@step(undo=undo)
async def outlast_async(name: str) -> str:
    await until_async(past_deadline)
    LEDGER.write(name)
    return name


@saga
def late(swallow: str = "") -> str:
    deadline()
    act("a")
    outlast("b")
    if swallow == "no more":
        return "done"
    try:
        act("c")
    except Exception as error:
        if not swallow:
            raise
        LEDGER.write(type(error).__name__)
    if swallow == "again":
        for _ in range(2):
            try:
                act("d")
            except Exception as error:
                LEDGER.write(type(error).__name__)
    if swallow == "raise":
        raise LookupError("another")
    return "done"


@saga
async def late_async(swallow: str = "") -> str:
    deadline()
    await act_async("a")
    await outlast_async("b")
    if swallow == "no more":
        return "done"
    try:
        await act_async("c")
    except Exception as error:
        if not swallow:
            raise
        LEDGER.write(type(error).__name__)
    if swallow == "again":
        for _ in range(2):
            try:
                await act_async("d")
            except Exception as error:
                LEDGER.write(type(error).__name__)
    if swallow == "raise":
        raise LookupError("another")
    return "done"


LONGER = 1.3
"""On SQLite, before Python 3.12, DBOS stores whole seconds: a saga can seem a second older."""


@saga(timeout=LONGER)
def expiring() -> str:
    deadline()
    act("a")
    outlast("b")
    return act("c")


@saga(timeout=LONGER)
async def expiring_async() -> str:
    deadline()
    await act_async("a")
    await outlast_async("b")
    return await act_async("c")


_numbers = itertools.count()


def new_id() -> str:
    return f"deadline-{next(_numbers)}"


def of(kind: str, saga_id: str, **options: Any) -> Any:
    return (late if kind == "sync" else late_async).options(
        saga_id=saga_id, timeout=LIMIT, **options
    )


UNDONE = ["undo b", "undo a"]
REFUSED = ["SagaTimeoutError"] * 3


def assert_timed_out(saga_id: str) -> SagaTimeoutError:
    with pytest.raises(SagaTimeoutError) as caught:
        SagaHandle[str](saga_id).result()
    assert status(saga_id) is SagaStatus.FAILED
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_past_the_deadline_no_step_begins(shared_app: sagas.Launched, kind: str) -> None:
    """The step in flight at the deadline ends in peace and is undone with the others."""
    saga_id = new_id()
    with pytest.raises(SagaTimeoutError, match=r"did not end within 0\.25 s"):
        of(kind, saga_id).run()
    assert ["a", "b", *UNDONE] == LEDGER
    error = assert_timed_out(saga_id)
    assert error.failure is not None
    third = "act" if kind == "sync" else "act_async"
    assert (error.failure.step, error.failure.step_id) == (third, 3)
    assert error.failure.error_type == "sagas.SagaTimeoutError"
    assert [r.step_id for r in error.undone] == [2, 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("swallow", ["once", "again", "raise"])
def test_the_deadline_cannot_be_swallowed(
    shared_app: sagas.Launched, kind: str, swallow: str
) -> None:
    """A body that goes on, returns, or raises something else is unwound for its deadline."""
    saga_id = new_id()
    with pytest.raises(SagaTimeoutError):
        of(kind, saga_id).run(swallow)
    refused = 3 if swallow == "again" else 1
    assert ["a", "b", *["SagaTimeoutError"] * refused, *UNDONE] == LEDGER
    assert len(names(saga_id)) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_swallowed_deadline_in_every_replay(shared_app: sagas.Launched, kind: str) -> None:
    """That the body swallowed it makes no difference after a crash, either."""
    saga_id = new_id()
    LEDGER.crash_at("undo b")
    of(kind, saga_id).start("again")
    until(lambda: LEDGER.died and has_left(saga_id))
    take_up(saga_id)
    assert ["a", "b", *REFUSED, "undo b", *REFUSED, *UNDONE] == LEDGER
    assert_timed_out(saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saga_that_has_done_everything_completes(shared_app: sagas.Launched, kind: str) -> None:
    """Where no step was left to begin, the deadline undoes nothing."""
    assert of(kind, new_id()).run("no more") == "done"
    assert LEDGER == ["a", "b"]


@saga
async def late_group() -> str:
    deadline()
    await act_async("a")
    await asyncio.gather(outlast_async("b"), act_async("c"))
    await asyncio.gather(act_async("d"), act_async("e"), return_exceptions=True)
    return "done"


def test_a_deadline_swallowed_in_a_group(shared_app: sagas.Launched) -> None:
    """`return_exceptions=True` does not save a saga from its deadline."""
    with pytest.raises(SagaTimeoutError):
        late_group.options(saga_id=new_id(), timeout=LIMIT).run()
    assert sorted(LEDGER[:3]) == ["a", "b", "c"]
    assert LEDGER[3:] == ["undo c", "undo b", "undo a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["call", "start", "queue", "dbos"])
@pytest.mark.slow
def test_the_limit_of_the_definition(shared_app: sagas.Launched, kind: str, how: str) -> None:
    """It holds however the saga was started."""
    definition = expiring if kind == "sync" else expiring_async
    saga_id = new_id()
    if how == "dbos":
        with SetWorkflowID(saga_id):
            if kind == "sync":
                DBOS.start_workflow(definition)
            else:
                asyncio.run(start_by_dbos(definition))
        until(lambda: status(saga_id).is_final)
    elif how == "call":
        with SetWorkflowID(saga_id), pytest.raises(SagaTimeoutError):
            if kind == "sync":
                definition()
            else:
                asyncio.run(definition())  # type: ignore[arg-type]
    else:
        options = {"queue": FAST} if how == "queue" else {}
        definition.options(saga_id=saga_id, **options).start()
        until(lambda: status(saga_id).is_final)
    assert_timed_out(saga_id)
    assert ["a", "b", *UNDONE] == LEDGER


async def start_by_dbos(definition: Any) -> None:
    handle = await DBOS.start_workflow_async(definition)
    with pytest.raises(SagaTimeoutError):
        await handle.get_result()


@pytest.mark.parametrize("how", ["start", "queue"])
def test_the_limit_of_a_start_wins(shared_app: sagas.Launched, how: str) -> None:
    """A start may give more time than the definition, and the saga knows its deadline."""
    saga_id = new_id()
    options = {"queue": FAST} if how == "queue" else {}
    before = time.time()
    limited_patient.options(saga_id=saga_id, timeout=100, **options).start()
    assert SagaHandle[float](saga_id).result(timeout=15) - before == pytest.approx(100, abs=10)


@saga(timeout=0.001)
def limited_patient() -> float:
    act("a")
    return deadline()


@saga(timeout=0.001)
async def limited_patient_async() -> float:
    await act_async("a")
    return deadline()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_the_deadline_counts_from_the_end_of_the_delay(
    shared_app: sagas.Launched, kind: str
) -> None:
    """A delay does not take anything of the time that a saga has."""
    saga_id = new_id()
    definition = limited_patient if kind == "sync" else limited_patient_async
    definition.options(saga_id=saga_id, queue=FAST, delay=2.2, timeout=2).start()
    found = SagaHandle[float](saga_id).result(timeout=20)
    row = DBOS.list_workflows(workflow_ids=[saga_id])[0]
    assert found == pytest.approx(row.created_at / 1000 + 4.2, abs=1.1)
    assert SagaHandle[float](saga_id).status() is SagaStatus.COMPLETED


@pytest.mark.parametrize("kind", KINDS)
def test_an_expired_saga_that_has_not_begun(shared_app: sagas.Launched, kind: str) -> None:
    """A saga that waited in its queue for longer than its limit ends without a step."""
    saga_id = new_id()
    definition = expiring if kind == "sync" else expiring_async
    DBOS.register_queue("stopped-queue", polling_interval_sec=0.01, concurrency=0)
    definition.options(saga_id=saga_id, timeout=0.05, queue="stopped-queue").start()
    created = DBOS.list_workflows(workflow_ids=[saga_id])[0].created_at / 1000
    until(lambda: time.time() > created + 0.06)
    DBOS.resume_workflow(saga_id, queue_name=FAST)
    until(lambda: status(saga_id).is_final)
    assert_timed_out(saga_id)
    assert LEDGER == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_deadline_that_passed_while_nobody_ran_it(shared_app: sagas.Launched, kind: str) -> None:
    """After a crash the deadline is the old one: past it the saga turns round at once."""
    saga_id = new_id()
    LEDGER.crash_at("a")
    definition = expiring if kind == "sync" else expiring_async
    definition.options(saga_id=saga_id).start()
    until(lambda: LEDGER.died and has_left(saga_id))
    first = SWITCH["deadline"]
    until(past_deadline)
    take_up(saga_id)
    # The step that was in doubt is settled, and undone.
    assert LEDGER == ["a", "a", "undo a"]
    assert_timed_out(saga_id)
    # Fresh, it counts from the moment at which it began; later, from that of its creation.
    assert SWITCH["deadline"] == pytest.approx(first, abs=1.2)


@step(undo=undo, retry=RetryPolicy(max_attempts=None, first_delay=600))
def fails(name: str) -> str:
    LEDGER.write(name)
    raise ConnectionError(name)


@step(undo=undo, retry=RetryPolicy(max_attempts=None, first_delay=600))
async def fails_async(name: str) -> str:
    LEDGER.write(name)
    raise ConnectionError(name)


@saga
def retries() -> None:
    act("a")
    fails("b")


@saga
async def retries_async() -> None:
    await act_async("a")
    await fails_async("b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["deadline", "cancel"])
def test_a_retry_delay_is_cut_short(shared_app: sagas.Launched, kind: str, what: str) -> None:
    """A step that waits for another attempt does not hold up the deadline, or a cancel."""
    saga_id = new_id()
    timeout = LIMIT if what == "deadline" else None
    definition = retries if kind == "sync" else retries_async
    handle = definition.options(saga_id=saga_id, timeout=timeout).start()
    if what == "cancel":
        until(lambda: "b" in LEDGER)
        handle.cancel("enough")
    until(lambda: handle.status().is_final)
    assert LEDGER == ["a", "b", "undo a"]
    if what == "deadline":
        assert_timed_out(saga_id)


def undo_slowly(result: str) -> None:
    LEDGER.write(f"undo {result}")
    run = _running.of(SWITCH["id"])
    assert run is not None
    assert run.compensating
    if SWITCH.setdefault("failed", 0) < 2:
        SWITCH["failed"] += 1
        raise ConnectionError("try again")


@step(undo=undo_slowly, undo_retry=RetryPolicy(max_attempts=5, first_delay=0.05))
def slow_to_undo(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def unwinds_late() -> None:
    deadline()
    act("a")
    slow_to_undo("b")
    outlast("c")
    act("d")


def test_unwinding_has_no_deadline(shared_app: sagas.Launched) -> None:
    """Undos run, and are tried again, long past it."""
    SWITCH["id"] = new_id()
    with pytest.raises(SagaTimeoutError):
        unwinds_late.options(saga_id=SWITCH["id"], timeout=LIMIT).run()
    assert LEDGER == ["a", "b", "c", "undo c", "undo b", "undo b", "undo b", "undo a"]


def test_a_deadline_that_is_not_reached_is_not_seen(shared_app: sagas.Launched) -> None:
    """A saga that ends in time completes, and a replay past its deadline goes on the same way."""
    saga_id = new_id()
    LEDGER.crash_at("b")
    two.options(saga_id=saga_id, timeout=60).start()
    until(lambda: LEDGER.died and has_left(saga_id))
    resume(saga_id)
    assert SagaHandle[str](saga_id).result() == "done"
    assert LEDGER == ["a", "b", "b"]


@saga
def two() -> str:
    act("a")
    act("b")
    return "done"
