"""Requests to sagas, and what can be asked for in lists, with DBOS itself."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import (
    SagaCancelledError,
    SagaClient,
    SagaHandle,
    SagaNotFoundError,
    SagaStatus,
    SagaTerminatedError,
    SagaUsageError,
    StepStatus,
    _dbos,
    saga,
)
from sagas._gate import DBOSGate, here
from sagas._marks import Marks, Parked, Struggling
from steps import step
from tests.support.labels import label

from ..conftest import FAST
from .support import until

RAN: list[str] = []
GATES: dict[str, threading.Event] = {}


@step
def note(saga_id: str) -> str:
    RAN.append(saga_id)
    return saga_id


@saga
def noted(saga_id: str) -> str:
    return note(saga_id)


@step
def wait_at(gate: str) -> str:
    RAN.append(gate)
    assert GATES[gate].wait(15)
    return gate


@saga(name="verbs.waiting")
def waiting(gate: str) -> str:
    return wait_at(gate)


@pytest.fixture
def client(shared_app: sagas.Launched) -> Iterator[SagaClient]:
    with SagaClient() as found:
        yield found


@pytest.fixture
def saga_id() -> str:
    return f"verb-{uuid.uuid4().hex[:8]}"


def queued(saga_id: str, **options: Any) -> None:
    """Enqueue a saga that does not begin by itself."""
    noted.options(saga_id=saga_id, queue=FAST, delay=3600, **options).start(saga_id)


@contextmanager
def running(saga_id: str) -> Iterator[None]:
    """A saga that is in a step."""
    GATES[saga_id] = threading.Event()
    handle = waiting.options(saga_id=saga_id).start(saga_id)
    try:
        until(lambda: saga_id in RAN)
        yield
    finally:
        GATES[saga_id].set()
        until(lambda: handle.status().is_final)


def park(saga_id: str) -> None:
    """Park a saga as a fault of the machinery does."""
    DBOS.update_workflow_attributes(
        saga_id, Parked("code changed", _dbos.now()).attributes(), merge=True
    )
    DBOS.cancel_workflow(saga_id)


def test_cancel_of_a_saga_that_waits(client: SagaClient, saga_id: str) -> None:
    """A saga that has not begun never does: it ends FAILED, with who cancelled it and why."""
    queued(saga_id)
    assert client.get(saga_id).status is SagaStatus.STARTED
    result = client.cancel(saga_id, "no stock", by="ann", wait=True)
    assert (bool(result), result.status) == (True, SagaStatus.FAILED)
    state = client.get(saga_id)
    assert (state.status, state.steps) == (SagaStatus.FAILED, ())
    (entry,) = state.audit
    assert (entry.verb, entry.by, entry.reason) == ("cancel", "ann", "no stock")
    assert abs(entry.time - _dbos.now()) < 60_000
    with pytest.raises(SagaCancelledError, match="before it began") as caught:
        SagaHandle[str](saga_id).result()
    assert caught.value.reason == "no stock"
    again = client.cancel(saga_id)
    assert (again.accepted, again.status) == (False, SagaStatus.FAILED)
    assert "Too late to cancel" in again.message
    assert saga_id not in RAN
    assert client.get(saga_id).audit == (entry,)


def test_cancel_of_a_saga_that_runs(client: SagaClient, saga_id: str) -> None:
    """The request is on the saga at once, for the process that runs it."""
    with running(saga_id):
        result = client.cancel(saga_id, "no stock", by="ann")
        assert (result.accepted, result.status) == (True, SagaStatus.PENDING)
        state = client.get(saga_id)
        assert state.stop_requested == "cancelled by ann: no stock"
        again = client.cancel(saga_id, "another", by="bob")
        assert again
        assert "was to turn round already: cancelled by ann" in again.message
        state = client.get(saga_id)
        assert state.stop_requested == "cancelled by ann: no stock"
        assert [e.by for e in state.audit] == ["ann", "bob"]


def test_cancel_by_handle(shared_app: sagas.Launched, saga_id: str) -> None:
    """A handle cancels its saga, from threads and from an event loop."""
    queued(saga_id)
    assert SagaHandle[str](saga_id).cancel("changed my mind", by="ann", wait=True)
    late = asyncio.run(SagaHandle[str](saga_id).cancel_async(wait=True))
    assert (late.accepted, late.status) == (False, SagaStatus.FAILED)
    other = f"{saga_id}-async"
    queued(other)
    assert asyncio.run(SagaHandle[str](other).cancel_async("x", wait=True))
    with pytest.raises(SagaNotFoundError):
        SagaHandle[str]("nowhere").cancel()


@pytest.mark.parametrize("state", ["queued", "running", "parked"])
def test_terminate(client: SagaClient, saga_id: str, state: str) -> None:
    """A saga is stopped where it is, whatever it does, and says by whom."""
    if state == "running":
        with running(saga_id):
            result = client.terminate(saga_id, reason="mess", by="ann")
            assert (bool(result), result.status) == (True, SagaStatus.TERMINATED)
    else:
        queued(saga_id)
        if state == "parked":
            park(saga_id)
        assert client.terminate(saga_id, reason="mess", by="ann")
    found = client.get(saga_id)
    assert found.status is SagaStatus.TERMINATED
    assert isinstance(found.error, SagaTerminatedError)
    assert "terminated by ann: mess" in str(found.error)
    assert [(e.verb, e.by, e.reason) for e in found.audit] == [("terminate", "ann", "mess")]
    assert not client.terminate(saga_id)
    assert not client.cancel(saga_id)
    assert not client.retry(saga_id)


def test_a_completed_saga_is_left_alone(client: SagaClient, saga_id: str) -> None:
    """What has completed stays so, and every request says that it has."""
    noted.options(saga_id=saga_id).run(saga_id)
    for result in (client.cancel(saga_id, wait=True), client.terminate(saga_id)):
        assert (result.accepted, result.status) == (False, SagaStatus.COMPLETED)
        assert "has completed" in result.message
    assert "not PARKED" in client.retry(saga_id).message
    assert "PARKED or COMPENSATING" in client.resolve(saga_id, 1, note="x").message
    assert client.get(saga_id).audit == ()


def test_retry_of_a_parked_saga(client: SagaClient, saga_id: str) -> None:
    """A parked saga goes on from where it was, with the messages sent to it meanwhile."""
    queued(saga_id)
    park(saga_id)
    state = client.get(saga_id)
    assert (state.status, state.reason) == (SagaStatus.PARKED, "code changed")
    client.send(saga_id, "topic", "kept")
    assert asyncio.run(client.retry_async(saga_id, by="ann", reason="deployed"))
    until(lambda: client.get(saga_id).status is SagaStatus.COMPLETED)
    assert RAN.count(saga_id) == 1
    marks = Marks.parse(DBOS.list_workflows(workflow_ids=[saga_id])[0].attributes)
    assert marks.parked is None
    assert marks.parked_ms >= 1
    assert [(e.verb, e.by, e.reason) for e in marks.audit] == [("retry", "ann", "deployed")]
    assert not client.retry(saga_id)


def test_requests_to_nobody(client: SagaClient) -> None:
    """An ID that no saga has is an error of its own, and nothing is written."""
    for ask in (
        lambda: client.cancel("nowhere"),
        lambda: client.terminate("nowhere"),
        lambda: client.retry("nowhere"),
        lambda: client.resolve("nowhere", 1, note="x"),
        lambda: client.send("nowhere", "topic", 1),
    ):
        with pytest.raises(SagaNotFoundError, match="nowhere"):
            ask()


def test_bad_input_is_refused(client: SagaClient, saga_id: str) -> None:
    """What cannot be written down is refused before anything is done to the saga."""
    queued(saga_id)
    for ask in (
        lambda: client.cancel(" "),
        lambda: client.cancel(saga_id, 7),  # type: ignore[arg-type]
        lambda: client.cancel(saga_id, by="a\x00"),
        lambda: client.terminate(saga_id, reason="\x00"),
        lambda: client.retry(saga_id, by=""),
        lambda: client.resolve(saga_id, 1, note=" "),
        lambda: client.resolve(saga_id, 9, note="x"),
        lambda: client.send(saga_id, "sagas.x", 1),
        lambda: client.send(saga_id, "", 1),
        lambda: client.send(saga_id, "topic", threading.Lock()),
    ):
        with pytest.raises(SagaUsageError):
            ask()
    state = client.get(saga_id)
    assert (state.status, state.audit) == (SagaStatus.STARTED, ())


def test_odd_text_is_stored(client: SagaClient, saga_id: str) -> None:
    """Any text that a database can hold comes back as it was given, on both databases."""
    queued(saga_id)
    text = 'a "quoted" \\ œ \n \U0001f600 $.x \\u0000'
    assert client.cancel(saga_id, text, by=text)
    (entry,) = client.get(saga_id).audit
    assert (entry.by, entry.reason) == (text, text)


@DBOS.workflow(name="verbs.receiver")
def receiver() -> list[Any]:
    return [DBOS.recv("topic", timeout_seconds=15) for _ in range(2)]


def test_send(client: SagaClient, saga_id: str) -> None:
    """A message arrives once for a key; None arrives as something that is not DBOS's None."""
    with SetWorkflowID(saga_id):
        handle = DBOS.start_workflow(receiver)
    client.send(saga_id, "topic", {"a": 1}, idempotency_key="k")
    asyncio.run(client.send_async(saga_id, "topic", {"a": 1}, idempotency_key="k"))
    client.send(saga_id, "topic", None)
    assert handle.get_result() == [{"a": 1}, {"__sagas__": "none"}]
    history = client.history(saga_id)
    assert [(r.name, r.status, r.result) for r in history] == [
        ("receive", StepStatus.COMPLETED, {"a": 1}),
        ("receive", StepStatus.COMPLETED, None),
    ]
    with pytest.raises(SagaUsageError, match="has ended"):
        client.send(saga_id, "topic", 1)


ASKED: dict[str, Any] = {}


@step
def ask_in_step(saga_id: str) -> None:
    ask_here(saga_id)


@saga
def asking(saga_id: str, in_step: bool) -> None:
    ask_in_step(saga_id) if in_step else ask_here(saga_id)


def ask_here(saga_id: str) -> None:
    refused = []
    for ask in (
        lambda: ASKED["client"].cancel(saga_id),
        lambda: ASKED["client"].terminate(saga_id),
        lambda: ASKED["client"].retry(saga_id),
        lambda: ASKED["client"].resolve(saga_id, 1, note="x"),
        lambda: ASKED["client"].send(saga_id, "topic", 1),
        lambda: SagaHandle[str](saga_id).cancel(),
    ):
        with pytest.raises(SagaUsageError, match="in a workflow or a step") as caught:
            ask()
        refused.append(str(caught.value))
    ASKED["refused"] = refused


@pytest.mark.parametrize("in_step", [True, False])
def test_requests_in_a_saga_are_refused(client: SagaClient, saga_id: str, in_step: bool) -> None:
    """A saga does not reach for another behind DBOS's back: a replay would do it again."""
    ASKED.clear()
    ASKED["client"] = client
    asking.options(saga_id=saga_id).run(saga_id, in_step)
    assert len(ASKED["refused"]) == 6


def test_requests_on_an_event_loop_are_refused(client: SagaClient, saga_id: str) -> None:
    """A blocking request does not hold up an event loop; the awaitable one is named."""
    queued(saga_id)

    async def ask() -> None:
        with pytest.raises(SagaUsageError, match=r"await SagaClient.cancel_async\(\)"):
            client.cancel(saga_id)
        with pytest.raises(SagaUsageError, match=r"await SagaHandle.cancel_async\(\)"):
            SagaHandle[str](saga_id).cancel()
        assert await client.cancel_async(saga_id, wait=True)
        assert not await client.terminate_async(saga_id)
        assert not await client.retry_async(saga_id)
        with pytest.raises(SagaUsageError, match="no step 1"):
            await client.resolve_async(saga_id, 1, note="x")

    asyncio.run(ask())


def test_lists_by_attributes_and_age(client: SagaClient, saga_id: str) -> None:
    """Sagas are found by what was attached to them, each with this very value, and by age."""
    attached: list[dict[str, Any]] = [
        {"run": saga_id, "n": 1, "deep": {"a": [1, 2]}},
        {"run": saga_id, "n": True, "deep": {"a": [1, 2], "b": 3}},
        {"run": saga_id, "n": None},
    ]
    for number, attributes in enumerate(attached):
        noted.options(saga_id=f"{saga_id}-{number}", attributes=attributes).run(saga_id)

    def found(**attributes: Any) -> list[str]:
        states = client.list(attributes={"run": saga_id, **attributes})
        return sorted(s.saga_id.removeprefix(f"{saga_id}-") for s in states)

    assert found() == ["0", "1", "2"]
    assert found(n=1) == ["0"]
    assert found(n=True) == ["1"]
    assert found(n=None) == ["2"]
    assert found(deep={"a": [1, 2]}) == ["0"]
    assert found(other=None) == []
    assert len(client.list(attributes={"run": saga_id}, limit=2)) == 2
    assert len(asyncio.run(client.list_async(attributes={"run": saga_id}, limit=2))) == 2
    created = {s.saga_id: s.created_at for s in client.list(attributes={"run": saga_id})}
    for moment in created.values():
        assert moment is not None
        younger = {i for i, other in created.items() if other is not None and other >= moment}
        for zone in (UTC, timezone(timedelta(hours=9))):
            since = client.list(attributes={"run": saga_id}, since=moment.astimezone(zone))
            assert {s.saga_id for s in since} == younger
    assert client.list(since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_lists_of_what_needs_a_person(client: SagaClient, saga_id: str) -> None:
    """What is parked, or fails again and again, is found among all the rest, and the rest too."""
    parked, fine = f"{saga_id}-parked", f"{saga_id}-fine"
    for one in (parked, fine):
        queued(one, attributes={"run": saga_id})
    park(parked)

    def found(**options: Any) -> list[str]:
        return sorted(s.saga_id for s in client.list(attributes={"run": saga_id}, **options))

    with running(saga_id):
        failing = Struggling(1, "wait_at", 7, "closed").attributes()
        marks = {"run": saga_id, **failing}
        DBOS.update_workflow_attributes(saga_id, marks, merge=True)
        assert found(needs_attention=True) == sorted([saga_id, parked])
        assert found(needs_attention=False) == [fine]
        assert found(needs_attention=True, status="PARKED") == [parked]
        assert found(needs_attention=True, name=noted) == [parked]
        assert client.get(saga_id).needs_attention
    until(lambda: found(needs_attention=True) == [parked])
    assert client.cancel(fine)
    assert found(status="FAILED") == [fine]
    assert client.terminate(parked)
    assert found(status="TERMINATED") == [parked]
    assert found(needs_attention=True) == []


@pytest.mark.parametrize(
    "filters",
    [
        {"since": datetime(2026, 1, 1)},
        {"since": "2026-01-01"},
        {"needs_attention": "yes"},
        {"attributes": ["a"]},
        {"attributes": {1: 2}},
        {"attributes": {"sagas.parked": None}},
        {"attributes": {"a": object()}},
        {"attributes": {"a": float("nan")}},
        {"status": 7},
    ],
    ids=label,
)
def test_filters_that_make_no_sense(client: SagaClient, filters: dict[str, Any]) -> None:
    """A filter that cannot be meant is refused, rather than finding nothing."""
    with pytest.raises(SagaUsageError):
        client.list(**filters)


@DBOS.workflow(name="verbs.fails")
def fails() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("of", ["here", "client"])
def test_the_gate_to_dbos(
    client: SagaClient, shared_app: sagas.Launched, saga_id: str, of: str
) -> None:
    """Through both gates the same is done; an ended workflow is rewound once, a running one not."""
    gate = here() if of == "here" else DBOSGate(client._client)
    assert gate.row("nowhere") is None
    with SetWorkflowID(saga_id), pytest.raises(ValueError):
        fails()
    assert gate.row(saga_id).status == "ERROR"
    assert gate.latest_version("test-app") == gate.row(saga_id).app_version
    assert gate.latest_version("nothing") is None
    gate.mark(saga_id, {"a": 1})
    gate.mark(saga_id, {"b": 'x"y'})
    assert gate.row(saga_id).attributes == {"a": 1, "b": 'x"y'}
    gate.rewind(saga_id, 1, None)
    until(lambda: gate.row(saga_id).status == "ERROR")
    with running(f"{saga_id}-runs"), pytest.raises(_dbos.DBOSError, match="rewind"):
        gate.rewind(f"{saga_id}-runs", 1, None)
    queued(f"{saga_id}-stopped")
    gate.dbos_cancel(f"{saga_id}-stopped")
    assert gate.row(f"{saga_id}-stopped").status == "CANCELLED"
    gate.resume(f"{saga_id}-stopped", FAST)
    until(lambda: gate.row(f"{saga_id}-stopped").status == "SUCCESS")
    assert [s["function_name"] for s in gate.steps(f"{saga_id}-stopped")] == ["note"]
