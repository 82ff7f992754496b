"""The pivot: the point of no return, behind which a saga can only go forward."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import (
    PivotPassedError,
    SagaCancelledError,
    SagaClient,
    SagaDefinitionError,
    SagaFailedError,
    SagaHandle,
    SagaParkedError,
    SagaStatus,
    SagaUsageError,
    pivot,
    pivot_async,
    saga,
    scope,
)
from steps import RetryPolicy, receive, receive_async, step

from .support import Ledger, names, until

LEDGER = Ledger()
FAILS: dict[str, int] = {}
KINDS = ("sync", "async")
SOON = RetryPolicy(max_attempts=None, first_delay=0.01, max_delay=0.01)


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    FAILS.clear()


@pytest.fixture(scope="module")
def supervision() -> sagas.Supervision:
    return sagas.Supervision(interval=0.1)


def new_id() -> str:
    return f"pivot-{uuid.uuid4().hex[:8]}"


def undo(result: str, name: str) -> None:
    LEDGER.write(f"undo {name}")


def _act(name: str) -> str:
    if FAILS.get(name, 0):
        FAILS[name] -= 1
        raise ConnectionError(name)
    LEDGER.write(name)
    return name


@step(undo=undo)
def do(name: str) -> str:
    return _act(name)


@step(undo=undo)
async def do_async(name: str) -> str:
    return _act(name)


@step(retry=RetryPolicy(max_attempts=2, first_delay=0.01))
def limited(name: str) -> str:
    return _act(name)


@saga(retriable=SOON)
def forward() -> str:
    do("a")
    pivot()
    do("b")
    receive("go")
    return do("c")


@saga(retriable=SOON)
async def forward_async() -> str:
    await do_async("a")
    await pivot_async()
    await do_async("b")
    await receive_async("go")
    return await do_async("c")


SAGAS: dict[str, Any] = {"sync": forward, "async": forward_async}


def waits(saga_id: str) -> bool:
    return "DBOS.sleep" in names(saga_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_behind_it_is_tried_until_it_succeeds(shared_app: sagas.Launched, kind: str) -> None:
    """A step without a policy of its own is retriable, and nothing is undone any more."""
    FAILS.update(b=3, c=2)
    handle = SAGAS[kind].options(saga_id=new_id()).start()
    until(lambda: waits(handle.saga_id))
    with SagaClient() as client:
        client.send(handle.saga_id, "go", 1)
    assert handle.result(timeout=15) == "c"
    assert LEDGER == ["a", "b", "c"]
    assert names(handle.saga_id)[1] == "saga:pivot"


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_behind_it_is_refused(shared_app: sagas.Launched, kind: str) -> None:
    """A request that arrives later says that it is too late, and the saga completes."""
    handle = SAGAS[kind].options(saga_id=new_id()).start()
    until(lambda: waits(handle.saga_id))
    with pytest.raises(PivotPassedError, match="only go forward"):
        handle.cancel("too late")
    with SagaClient() as client:
        client.send(handle.saga_id, "go", 1)
    assert handle.result(timeout=15) == "c"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_dbos_cancel_behind_it_is_resumed_forwards(shared_app: sagas.Launched, kind: str) -> None:
    """What DBOS cancels behind the pivot goes on to its end, and its messages are kept."""
    handle = SAGAS[kind].options(saga_id=new_id()).start()
    until(lambda: waits(handle.saga_id))
    DBOS.cancel_workflow(handle.saga_id)
    until(lambda: DBOS.get_workflow_status(handle.saga_id).status == "PENDING")
    with SagaClient() as client:
        client.send(handle.saga_id, "go", 1)
    assert handle.result(timeout=15) == "c"
    assert LEDGER == ["a", "b", "c"]


@saga(timeout=0.5, retriable=SOON)
def out_of_time() -> str:
    do("a")
    pivot()
    receive("go")
    return do("b")


def test_the_deadline_does_not_count_behind_it(shared_app: sagas.Launched) -> None:
    """A saga past its pivot does not turn round when its time is up."""
    handle = out_of_time.options(saga_id=new_id()).start()
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.8)
    with SagaClient() as client:
        client.send(handle.saga_id, "go", 1)
    assert handle.result(timeout=15) == "b"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", ["a", "b", "c"])
def test_a_crash_on_either_side(shared_app: sagas.Launched, kind: str, at: str) -> None:
    """A replay passes the pivot again without effect."""
    saga_id = new_id()
    with SagaClient() as client:
        handle = SAGAS[kind].options(saga_id=saga_id, queue=_later()).start()
        client.send(saga_id, "go", 1)
        LEDGER.crash_at(at)
        assert handle.result(timeout=20) == "c"
    assert [e for e in LEDGER if e != at] == [e for e in "abc" if e != at]
    assert LEDGER.count(at) == 2


def _later() -> str:
    DBOS.register_queue("pivot-queue", polling_interval_sec=0.05)
    return "pivot-queue"


@saga
def gives_up() -> str:
    do("a")
    pivot()
    return limited("b")


@pytest.mark.slow
def test_a_step_that_gives_up_parks(shared_app: sagas.Launched) -> None:
    """Behind the pivot a step that gives up parks the saga; a retry tries it again."""
    FAILS.update(b=2)
    handle = gives_up.options(saga_id=new_id()).start()
    with pytest.raises(SagaParkedError, match="gave up, past the pivot"):
        handle.result(timeout=15)
    assert LEDGER == ["a"]
    with SagaClient() as client:
        assert client.retry(handle.saga_id)
    again = SagaHandle[str](handle.saga_id)
    until(lambda: again.status() is SagaStatus.COMPLETED)
    assert LEDGER == ["a", "b"]


SWITCH = {"raise": True}


@saga
def raises_behind() -> str:
    do("a")
    pivot()
    if SWITCH["raise"]:
        raise ValueError("a bug")
    return do("b")


@pytest.mark.slow
def test_an_error_of_the_body_parks(shared_app: sagas.Launched) -> None:
    """Behind the pivot nothing is undone for an error of the body; mended, the saga goes on."""
    SWITCH["raise"] = True
    handle = raises_behind.options(saga_id=new_id()).start()
    with pytest.raises(SagaParkedError, match="a bug"):
        handle.result(timeout=15)
    SWITCH["raise"] = False
    with SagaClient() as client:
        assert client.retry(handle.saga_id)
    until(lambda: SagaHandle[str](handle.saga_id).status() is SagaStatus.COMPLETED)
    assert LEDGER == ["a", "b"]


@saga
def asked_before() -> str:
    do("a")
    receive("go")
    pivot()
    return do("b")


def test_a_cancel_before_it_is_obeyed(shared_app: sagas.Launched) -> None:
    """A request that is there before the pivot keeps the saga from passing it."""
    handle = asked_before.options(saga_id=new_id()).start()
    until(lambda: waits(handle.saga_id))
    handle.cancel("in time")
    with pytest.raises(SagaCancelledError):
        handle.result(timeout=15)
    assert LEDGER == ["a", "undo a"]


@saga
def in_a_scope() -> None:
    with scope():
        pivot()


@saga
def two_pivots() -> None:
    try:
        with scope():
            do("a")
            pivot()
    except SagaUsageError:
        do("b")
    pivot()
    pivot()


@saga
async def pivot_in_wrong_form() -> None:
    pivot()


@saga
async def in_a_branch() -> None:
    await asyncio.gather(do_async("a"), pivot_async())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (in_a_scope, "in a scope"),
        (pivot_in_wrong_form, "pivot_async"),
        (in_a_branch, "in flight, or in a branch"),
    ],
    ids=["scope", "form", "branch"],
)
def test_where_it_does_not_belong(shared_app: sagas.Launched, wrong: Any, words: str) -> None:
    """In a scope, in a branch, in the wrong form: an error that says why not; all is undone."""
    with pytest.raises(SagaFailedError, match=words):
        wrong.options(saga_id=new_id()).run()


def test_a_second_pivot_parks(shared_app: sagas.Launched) -> None:
    """A saga has one pivot; the second is an error, behind the first, so it parks."""
    with pytest.raises(SagaParkedError, match="has passed its pivot already"):
        two_pivots.options(saga_id=new_id()).run()
    assert LEDGER == ["a", "undo a", "b"]


def test_a_bad_policy() -> None:
    """`retriable` takes a policy."""
    with pytest.raises(SagaDefinitionError, match="retriable"):
        saga(retriable=3)(lambda: None)  # type: ignore[call-overload]
