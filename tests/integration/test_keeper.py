"""A process whose name is gone for a while: what it may do meanwhile, and what comes after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

import sagas
from sagas import SagaStatus, Supervision, _dbos, _keeper, _running, saga
from sagas._session import Session, lock_key
from steps import RetryPolicy, step
from tests.support.worker import own_lock

from .support import Ledger, status, until

LEDGER = Ledger()
TRIES: list[str] = []
OPEN = threading.Event()
APP = "test-app"

pytestmark = [pytest.mark.parametrize("backend", ["postgres"]), pytest.mark.slow]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    LEDGER.clear()
    TRIES.clear()
    OPEN.clear()
    monkeypatch.setattr(_keeper, "INTERVAL", 0.2)


@pytest.fixture
def other(database: str) -> Iterator[Session]:
    """A session of somebody else's."""
    session = Session(sa.make_url(database))
    yield session
    session.close()


@pytest.fixture
def here(config: dict[str, Any]) -> sagas.Launched:
    """This process, launched, which looks often."""
    supervision = Supervision(interval=0.05, failover=1)
    return sagas.launch(config, executor_id="here", supervision=supervision)


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step(retry=RetryPolicy(max_attempts=None, first_delay=0.05, backoff=1))
def try_until_open(saga_id: str) -> None:
    TRIES.append(saga_id)
    if not OPEN.is_set():
        raise ConnectionError("not open")


@saga(name="keeper-trying")
def trying(saga_id: str) -> str:
    act(f"a {saga_id}")
    try_until_open(saga_id)
    act(f"b {saga_id}")
    return "done"


def take_away(other: Session) -> None:
    """End the session that holds this process's name, and hold the name."""
    key = lock_key(APP, "here")

    def taken() -> bool:
        for pid in other.holders([key]).values():
            other.ask("SELECT pg_terminate_backend(:pid)", pid=pid)
        return other.try_lock(key)

    until(taken)


def give_back(other: Session) -> None:
    other.ask("SELECT pg_advisory_unlock(:key)", key=lock_key(APP, "here"))


def test_a_process_without_its_name_begins_nothing(here: sagas.Launched, other: Session) -> None:
    """While another process has its name it ends its executions; they go on when it is back."""
    running = trying.options(saga_id="r").start("r")
    until(lambda: len(TRIES) > 2)
    take_away(other)
    until(lambda: not _running.all_runs())
    begun = len(TRIES)
    fresh = trying.options(saga_id="f").start("f")
    until(lambda: not _running.all_runs())
    assert status("f") is SagaStatus.PENDING
    assert len(TRIES) == begun
    assert LEDGER == ["a r"]
    OPEN.set()
    give_back(other)
    assert running.result(timeout=15) == "done"
    assert fresh.result(timeout=15) == "done"
    assert sorted(LEDGER) == ["a f", "a r", "b f", "b r"]
    assert len(TRIES) == begun + 2


def test_what_was_taken_over_is_let_go(here: sagas.Launched, other: Session) -> None:
    """A process that has its name back ends its executions of sagas that others have by then."""
    kept = trying.options(saga_id="kept").start("kept")
    lost = trying.options(saga_id="lost").start("lost")
    until(lambda: {"kept", "lost"} <= set(TRIES))
    take_over(other, "lost")
    until(lambda: _running.of("lost") is None)
    begun = TRIES.count("lost")
    tried = len(TRIES)
    until(lambda: len(TRIES) > tried + 5)
    assert TRIES.count("lost") == begun
    assert _running.of("kept") is not None
    DBOS.register_queue("others", polling_interval_sec=0.05)  # now somebody serves it
    OPEN.set()
    assert kept.result(timeout=15) == "done"
    assert lost.result(timeout=15) == "done"
    assert sorted(LEDGER) == ["a kept", "a lost", "b kept", "b lost"]


def take_over(other: Session, saga_id: str) -> None:
    """Have another process take a saga over while this one's name is free."""
    lock = own_lock()
    client = _dbos.client(lock._url.render_as_string(hide_password=False))
    try:
        client.resume_workflow(saga_id, queue_name="others")
    finally:
        client.destroy()
    since = lock.since
    for pid in other.holders([lock_key(APP, "here")]).values():
        other.ask("SELECT pg_terminate_backend(:pid)", pid=pid)
    until(lambda: lock.since > since)


def test_an_error_does_not_end_the_supervisor(
    here: sagas.Launched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A round that fails is logged, and the next one does what it had to do."""
    handle = trying.options(saga_id="s").start("s")
    until(lambda: TRIES)
    rounds: list[int] = []
    real = _dbos.stopped_rows

    def failing(*args: Any) -> Any:
        rounds.append(1)
        if len(rounds) < 3:
            raise sa.exc.OperationalError("SELECT 1", {}, Exception("away"))
        return real(*args)

    monkeypatch.setattr(_dbos, "stopped_rows", failing)
    DBOS.cancel_workflow("s")
    until(lambda: handle.status() is SagaStatus.FAILED)
    assert LEDGER == ["a s", "undo a s"]
    assert len(rounds) >= 3
    assert sum("is held up" in r.getMessage() for r in caplog.records) == 2
