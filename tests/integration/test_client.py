"""Looking at sagas: from the process that runs them and from others."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID

import sagas
from sagas import (
    SagaClient,
    SagaFailedError,
    SagaNotFoundError,
    SagaStatus,
    SagaUsageError,
    saga,
)
from steps import (
    NonRetryableError,
    RetriesExhaustedError,
    RetryPolicy,
    StepTimeoutError,
    idempotency_key,
    step,
)

from .support import Crash, until


def undo(result: int) -> None:
    if result < 0:
        raise NonRetryableError("cannot be undone")


@step(undo=undo)
def act(number: int) -> int:
    return number


@saga
def seen(number: int) -> dict[str, int]:
    act(number)
    if number <= 0:
        raise ValueError("no")
    return {"number": number}


@saga(name="seen too")
def seen_too(number: int) -> int:
    return act(number)


@DBOS.workflow(name="client.no_saga")
def no_saga() -> None:
    act(1)


def make_all(prefix: str) -> None:
    """A saga of each kind of end."""
    seen.options(saga_id=f"{prefix}done", attributes={"team": "a"}).run(1)
    for number, name in ((0, "failed"), (-1, "parked")):
        with pytest.raises(sagas.SagaOutcomeError):
            seen.options(saga_id=f"{prefix}{name}").run(number)
    seen_too.options(saga_id=f"{prefix}other").run(1)
    with SetWorkflowID(f"{prefix}none"):
        no_saga()


def test_list(app: sagas.Launched) -> None:
    """list() shows sagas only, the newest first, by status and by name, up to a limit."""
    make_all("")
    with SagaClient() as client:
        until(lambda: client.list(name="sagas.catalog"))
        ids = [s.saga_id for s in client.list()]
        assert ids == ["other", "parked", "failed", "done"]
        assert [s.saga_id for s in client.list(limit=2)] == ["other", "parked"]
        assert [s.saga_id for s in client.list(name=seen)] == ["parked", "failed", "done"]
        assert [s.saga_id for s in client.list(name=["seen too", seen], limit=1)] == ["other"]
        assert [s.saga_id for s in client.list(status="FAILED")] == ["failed"]
        assert [s.saga_id for s in client.list(status=SagaStatus.PARKED)] == ["parked"]
        both = client.list(status=[SagaStatus.COMPLETED, "PARKED"], name=seen)
        assert [s.saga_id for s in both] == ["parked", "done"]
        assert client.list(name="nothing") == []
        (done,) = client.list(status="COMPLETED", name=seen)
        assert done.attributes == {"team": "a"}
        (failed,) = client.list(status="FAILED")
        assert failed.failure is not None
        assert failed.failure.message == "no"
        assert asyncio.run(client.list_async(limit=1))[0].saga_id == "other"


def test_get(app: sagas.Launched) -> None:
    """get() gives the whole state, history() the steps; an unknown ID is an error."""
    make_all("")
    with SagaClient() as client:
        state = client.get("done")
        assert state.result == {"number": 1}
        assert state.name == "seen"
        assert state.created_at is not None
        assert state.completed_at is not None
        assert state.created_at <= state.completed_at
        assert [s.name for s in client.history("done")] == ["act"]
        assert asyncio.run(client.get_async("done")) == state
        assert asyncio.run(client.history_async("done")) == state.steps
        for look in (client.get, client.history):
            with pytest.raises(SagaNotFoundError, match="nowhere"):
                look("nowhere")
        with pytest.raises(SagaUsageError, match="BOGUS"):
            client.list(status="BOGUS")
        with pytest.raises(SagaUsageError, match="limit"):
            client.list(limit=0)


ELSEWHERE = """
import json, sys
from sagas import SagaClient
with SagaClient(sys.argv[1]) as client:
    print(json.dumps([[s.saga_id, s.status, str(s.failure)] for s in client.list()]))
    print(json.dumps([[s.name, s.status] for s in client.history("failed")]))
"""


def test_from_a_process_without_the_code(app: sagas.Launched) -> None:
    """A client in another process, without the sagas' code, sees the same."""
    make_all("")
    url = app.config["system_database_url"]
    ended = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(sagas.__file__).parents[1])},
    )
    listed, steps = (json.loads(line) for line in ended.stdout.splitlines())
    assert [row[:2] for row in listed] == [
        ["other", "COMPLETED"],
        ["parked", "PARKED"],
        ["failed", "FAILED"],
        ["done", "COMPLETED"],
    ]
    assert "no" in listed[2][2]
    assert steps == [["act", "compensated"]]


def test_a_dbos_cancel_before_the_start(app: sagas.Launched) -> None:
    """A saga that DBOS cancelled before it began has nothing to undo: it is FAILED, and says so."""
    handle = seen.options(saga_id="c", queue=_queue(), delay=30).start(1)
    DBOS.cancel_workflow("c")
    with pytest.raises(sagas.SagaCancelledError, match="before it began"):
        handle.result(timeout=15)
    with SagaClient() as client:
        assert client.get("c").status is SagaStatus.FAILED


def _queue() -> str:
    DBOS.register_queue("client-queue")
    return "client-queue"


def test_no_tables(tmp_path: Path) -> None:
    """A database without DBOS's tables, or none at all, is a clear error and stays so."""
    path = tmp_path / "empty.sqlite"
    with pytest.raises(SagaUsageError, match="no SQLite file"):
        SagaClient(f"sqlite:///{path}")
    assert not path.exists()
    path.touch()
    with pytest.raises(SagaUsageError, match="tables cannot be read"):
        SagaClient(f"sqlite:///{path}")


@step
def die_once() -> str:
    if DYING.pop("die", None):
        raise Crash
    DYING["gate"].wait(15)
    return "survived"


@saga
def dies_once() -> str:
    return die_once()


DYING: dict[str, Any] = {}


def test_a_recovered_saga_is_pending(app: sagas.Launched, relaunch: Any) -> None:
    """What DBOS enqueues to recover it has begun long since: it is PENDING, never STARTED."""
    DYING.update(die=True, gate=threading.Event())
    with pytest.raises(Crash):
        dies_once.options(saga_id="r").start().result()
    relaunch()
    seen = set()
    with SagaClient() as client:
        for _ in range(100):
            state = client.get("r")
            seen.add((state.status, state.queue))
            if state.steps:
                break
            time.sleep(0.05)
        DYING["gate"].set()
        until(lambda: client.get("r").status is SagaStatus.COMPLETED)
    assert seen == {(SagaStatus.PENDING, None)}


TRIED: list[int] = []


@step(retry=RetryPolicy(max_attempts=3, first_delay=0.01))
def flaky(succeeds_at: int) -> str:
    TRIED.append(len(TRIED) + 1)
    if len(TRIED) < succeeds_at:
        raise ConnectionError(f"try {len(TRIED)}")
    return "at last"


@saga
def retrying(succeeds_at: int) -> str:
    return flaky(succeeds_at)


def test_attempts_are_recorded(app: sagas.Launched) -> None:
    """A step is tried again by its policy; attempts and errors can be seen."""
    TRIED.clear()
    handle = retrying.start(3)
    assert handle.result() == "at last"
    (record,) = handle.state().steps
    assert (record.attempts, record.result) == (3, "at last")
    TRIED.clear()
    handle = retrying.start(9)
    with pytest.raises(SagaFailedError) as caught:
        handle.result()
    cause = caught.value.__cause__
    assert isinstance(cause, RetriesExhaustedError)
    assert [str(e) for e in cause.errors] == ["try 1", "try 2", "try 3"]
    (record,) = handle.state().steps
    assert record.attempts == 3
    assert record.error is not None
    assert record.error.error_type == "steps.RetriesExhaustedError"


@DBOS.workflow(name="client.plain")
def plain(succeeds_at: int) -> str:
    return flaky(succeeds_at)


@step
async def act_async(number: int) -> int:
    await asyncio.sleep(0)
    return number


@DBOS.workflow(name="client.plain_async")
async def plain_async() -> list[int]:
    return await asyncio.gather(act_async(1), act_async(2))


def test_steps_in_a_plain_workflow(app: sagas.Launched) -> None:
    """In a DBOS workflow that is no saga, a step is a DBOS step with our retries."""
    TRIED.clear()
    with SetWorkflowID("plain"):
        assert plain(2) == "at last"
    assert [r["function_name"] for r in DBOS.list_workflow_steps("plain")] == ["flaky"]
    with SetWorkflowID("plain-async"):
        assert DBOS.start_workflow(plain_async).get_result() == [1, 2]
    assert len(DBOS.list_workflow_steps("plain-async")) == 2


GATE = threading.Event()


@step(timeout=0.05, retry=RetryPolicy(max_attempts=2, first_delay=0))
def slow_once() -> tuple[int, str]:
    TRIED.append(1)
    if len(TRIED) == 1:
        GATE.wait(30)
    return len(TRIED), idempotency_key()


@step(timeout=0.05)
async def slow_async() -> None:
    await asyncio.sleep(30)


@DBOS.workflow(name="client.plain_slow")
def plain_slow() -> tuple[int, str]:
    return slow_once()


@DBOS.workflow(name="client.plain_slow_async")
async def plain_slow_async() -> None:
    await slow_async()


def test_a_timeout_in_a_plain_workflow(app: sagas.Launched) -> None:
    """In a DBOS workflow that is no saga, a step's timeout bounds each of its attempts."""
    TRIED.clear()
    GATE.clear()
    try:
        with SetWorkflowID("slow"):
            assert plain_slow() == (2, "slow:1")
    finally:
        GATE.set()
    assert [r["function_name"] for r in DBOS.list_workflow_steps("slow")] == ["slow_once"]
    with SetWorkflowID("slow-async"):
        handle = DBOS.start_workflow(plain_slow_async)
    with pytest.raises(StepTimeoutError, match=r"'slow_async' did not end within 0\.05 s"):
        handle.get_result()
