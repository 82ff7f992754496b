"""Names of executors on PostgreSQL: who gets which, and who holds it still."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sagas
from sagas import SagaStatus, _session
from sagas._lock import acquire
from sagas._session import Hold, Session, SessionLock, lock_key
from tests.support.worker import Task, Worker, ledger

from .support import end_session, until

APP = "test-app"

pytestmark = [pytest.mark.parametrize("backend", ["postgres"])]


@pytest.fixture
def locks(database: str) -> Iterator[list[SessionLock]]:
    """Locks to be released at the end."""
    taken: list[SessionLock] = []
    yield taken
    for lock in taken:
        lock.release()


@pytest.fixture
def take(database: str, locks: list[SessionLock]) -> Any:
    """Take a name, as a process does at its launch."""

    def take(executor_id: str | None = None, app: str = APP) -> SessionLock:
        lock = acquire(database, app, executor_id)
        assert isinstance(lock, SessionLock)
        locks.append(lock)
        return lock

    return take


@pytest.fixture
def other(database: str) -> Iterator[Session]:
    """A session of somebody else's."""
    session = Session(sa.make_url(database))
    yield session
    session.close()


def test_the_first_free_name(take: Any) -> None:
    """Without configuration the processes of an application are local, local-2, local-3."""
    first, second, third = take(), take(), take()
    assert [lock.executor_id for lock in (first, second, third)] == ["local", "local-2", "local-3"]
    assert take(app="other-app").executor_id == "local"
    second.release()
    assert take().executor_id == "local-2"
    assert take().executor_id == "local-4"


def test_a_process_may_be_named_as_those_without_a_name(take: Any) -> None:
    """A process that is named local-2 is passed over by those without a name."""
    assert take("local-2").executor_id == "local-2"
    assert [take().executor_id, take().executor_id] == ["local", "local-3"]


def test_maintaining_a_name(take: Any) -> None:
    """A name that nothing has happened to is held, since the beginning."""
    lock = take()
    since = lock.since
    assert lock.maintain() is Hold.HELD
    assert lock.since == since
    assert lock.held


def test_a_session_that_was_ended(take: Any, other: Session) -> None:
    """A process whose session is gone takes its name again at once, by a new session."""
    lock = take()
    before = lock.since
    end_session(other, APP, "local")
    assert lock.maintain() is Hold.HELD
    assert lock.held
    assert lock.since > before
    assert not other.try_lock(lock_key(APP, "local"))
    [row] = other.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sagas executor local'"
    )
    assert row[0] == 1


def test_a_name_that_somebody_else_took(take: Any, other: Session) -> None:
    """A process whose name was taken meanwhile judges nobody, and gets it back when free."""
    lock = take()
    end_session(other, APP, "local")
    assert other.try_lock(lock_key(APP, "local"))
    assert lock.maintain() is Hold.TAKEN
    assert not lock.held
    assert lock.free({"nobody"}) == frozenset()
    with lock.in_name_of("nobody") as had:
        assert not had
    assert lock.maintain() is Hold.TAKEN
    other.ask("SELECT pg_advisory_unlock(:key)", key=lock_key(APP, "local"))
    assert lock.maintain() is Hold.HELD
    assert lock.free({"nobody"}) == {"nobody"}


def test_a_session_that_only_the_server_takes_for_alive(take: Any) -> None:
    """The name that the process's own lost session still holds is not taken by somebody else."""
    lock = take()
    lost = lock._session
    assert lost is not None
    lock._session = None  # as after a silence: the client has given up, the server has not
    try:
        assert lock.maintain() is Hold.HELD
        with pytest.raises(sa.exc.OperationalError, match="administrator command"):
            lost.ask("SELECT 1")
    finally:
        lost.close()


def test_a_server_that_does_not_answer(
    take: Any, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not there, or keeps silent, is given up within seconds, until it is back."""
    lock = take()
    reachable = lock._url
    end_session(other, APP, "local")
    lock._url = sa.make_url("postgresql://nobody@127.0.0.1:1/nothing")
    assert lock.maintain() is Hold.UNREACHABLE
    assert not lock.held
    lock._url = reachable
    assert lock.maintain() is Hold.HELD

    monkeypatch.setattr(_session, "ANSWER_WITHIN", 0.2)
    session = lock._session
    assert session is not None
    begun = time.monotonic()
    with pytest.raises(sa.exc.OperationalError):
        session.ask("SELECT pg_sleep(60)")
    assert time.monotonic() - begun < 5
    assert lock.maintain() is Hold.HELD


def test_a_released_name_is_not_taken_again(take: Any) -> None:
    """A supervisor that comes late does not take back what the process has given up."""
    lock = take()
    lock.release()
    assert lock.maintain() is Hold.UNREACHABLE
    assert take().executor_id == "local"


def test_looking_disturbs_nobody(take: Any) -> None:
    """While names are looked at, one that is taken by its executor is granted at once."""
    watcher = take("watcher")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            watcher.free({"x"})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            begun = time.monotonic()
            lock = take("x")
            assert time.monotonic() - begun < 2
            assert watcher.free({"x", "y"}) == {"y"}
            lock.release()
            until(lambda: watcher.free({"x"}) == {"x"})
    finally:
        stop.set()
        thread.join()


def test_holding_anothers_name(take: Any, other: Session) -> None:
    """A dead executor's name is held by one thread of one process, and given back after it."""
    one, two = take("one"), take("two")
    with one.in_name_of("x") as had:
        assert had
        assert one.holds("x")
        assert two.free({"x"}) == frozenset()
        for lock in (one, two):
            with lock.in_name_of("x") as again:
                assert not again
        assert one.holds("x")
    assert not one.holds("x")
    assert two.free({"x"}) == {"x"}
    with two.in_name_of("two") as own:
        assert not own
    with one.in_name_of("x") as had:
        end_session(other, APP, "x")
        assert had
        with pytest.raises(sa.exc.OperationalError):
            one.holds("x")
        assert one.maintain() is Hold.HELD
        assert not one.holds("x")


@pytest.fixture
def workers(database: str, tmp_path: Path) -> Iterator[Any]:
    """Start workers that are processes of their own; killed at the end."""
    started: list[Worker] = []

    def start(executor_id: str | None = None) -> Worker:
        started.append(Worker(Task(str(tmp_path), database, executor_id)))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.mark.slow
def test_a_restarted_worker_gets_its_name_and_its_sagas(
    workers: Any, database: str, tmp_path: Path
) -> None:
    """Three workers need no names; one that takes the place of a killed one resumes its sagas."""
    several = []
    for number in range(3):
        several.append(workers())
        expected = "local" if number == 0 else f"local-{number + 1}"
        assert several[-1].answer() == f"launched {expected}"
    assert several[1].tell("start", "s") == "ok"
    until(lambda: "b begun s" in ledger(tmp_path))
    several[1].kill()
    (tmp_path / "gate").touch()
    assert workers().answer() == "launched local-2"
    with sagas.SagaClient(database) as client:
        until(lambda: client.get("s").status is SagaStatus.COMPLETED)
        assert client.get("s").executor_id in ("local", "local-2", "local-3")
    assert ledger(tmp_path) == ["a s", "b begun s", "b begun s", "b s", "c s"]
