"""Sagas of an executor that is dead go on elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

import sagas
from sagas import SagaStatus, _dbos
from sagas._failover import Failover, Takeover
from sagas._lock import acquire
from sagas._session import Hold, Session, SessionLock
from tests.support.worker import QUEUE, Task, Worker, failover, ledger, own_lock, settings, use

from .support import end_session, names, status, until

PATIENCE = 1.0

pytestmark = [pytest.mark.parametrize("backend", ["postgres"]), pytest.mark.slow]


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


@pytest.fixture
def here(database: str, tmp_path: Path) -> sagas.Launched:
    """This process as a worker, named `here`."""
    use(tmp_path)
    return sagas.launch(settings(Task(str(tmp_path), database, "here")))


def taken_over(looking: Failover, until_dead: str) -> list[Takeover]:
    """Look until there is a takeover."""
    found: list[Takeover] = []

    def look() -> bool:
        found.extend(looking.look())
        return bool(found)

    until(look)
    assert {t.executor_id for t in found} == {until_dead}
    return found


def die_in_the_middle(workers: Any, tmp_path: Path, **sagas: str) -> None:
    """Let a worker be killed while it is in the second step of these sagas."""
    worker = workers("there")
    assert worker.answer() == "launched there"
    for saga_id, how in sagas.items():
        assert worker.tell(how, saga_id) == "ok"
    until(lambda: all(f"b begun {saga_id}" in ledger(tmp_path) for saga_id in sagas))
    worker.kill()


def test_a_dead_executors_sagas_go_on_here(workers: Any, database: str, tmp_path: Path) -> None:
    """A saga that was running in a killed process is resumed after a while, on its own queue."""
    die_in_the_middle(workers, tmp_path, direct="start", queued="enqueue")
    use(tmp_path)
    sagas.launch(settings(Task(str(tmp_path), database, "here")))
    (tmp_path / "gate").touch()
    looking = failover(PATIENCE)
    begun = time.monotonic()
    [takeover] = taken_over(looking, "there")
    assert time.monotonic() - begun >= PATIENCE
    assert sorted(takeover.resumed) == ["direct", "queued"]
    assert (takeover.parked, takeover.finished) == ((), ())
    assert looking.is_dead("there")
    for saga_id in ("direct", "queued"):
        until(lambda saga_id=saga_id: status(saga_id) is SagaStatus.COMPLETED)
        row = DBOS.list_workflows(workflow_ids=[saga_id])[0]
        assert row.executor_id == "here"
        assert row.attributes is not None
        assert row.attributes["sagas.takeovers"] == 1
        assert row.queue_name == (QUEUE if saga_id == "queued" else "_dbos_internal_queue")
        assert len(names(saga_id)) == 3
    assert Counter(ledger(tmp_path)) == Counter(
        f"{entry} {saga_id}"
        for saga_id in ("direct", "queued")
        for entry in ("a", "b begun", "b begun", "b", "c")
    )
    assert looking.look() == []


def test_two_workers_after_one_death(workers: Any, tmp_path: Path, database: str) -> None:
    """Of several that find an executor dead one takes over: each saga is resumed once."""
    sagas_of_it = {f"s{n}": "start" for n in range(20)}
    heirs = [workers("one"), workers("two")]
    assert [heir.answer() for heir in heirs] == ["launched one", "launched two"]
    die_in_the_middle(workers, tmp_path, **sagas_of_it)
    (tmp_path / "gate").touch()
    for heir in heirs:
        assert heir.tell("failover", str(PATIENCE)) == "ok"
    with sagas.SagaClient(database) as client:
        until(
            lambda: all(client.get(s).status is SagaStatus.COMPLETED for s in sagas_of_it),
            timeout=30,
        )
        for saga_id in sagas_of_it:
            assert len(client.history(saga_id)) == 3
    assert Counter(ledger(tmp_path)) == Counter(
        f"{entry} {saga_id}"
        for saga_id in sagas_of_it
        for entry in ("a", "b begun", "b begun", "b", "c")
    )


@pytest.fixture
def other(database: str) -> Iterator[Session]:
    session = Session(sa.make_url(database))
    yield session
    session.close()


def test_an_executor_that_takes_its_name_again_is_not_dead(
    workers: Any, here: sagas.Launched, tmp_path: Path, other: Session
) -> None:
    """A living process whose session is ended now and again keeps its sagas."""
    worker = workers("there")
    assert worker.answer() == "launched there"
    assert worker.tell("start", "s") == "ok"
    until(lambda: "b begun s" in ledger(tmp_path))
    assert worker.tell("failover", "60") == "ok"
    looking = failover(PATIENCE)
    held = 0
    for _ in range(4):
        end_session(other, "worker-app", "there")
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            assert looking.look() == []
            held += own_lock().free({"there"}) == frozenset()
    assert held
    assert not looking.is_dead("there")
    assert ledger(tmp_path) == ["a s", "b begun s"]


@pytest.mark.parametrize("looks_meanwhile", [True, False])
def test_who_has_lost_its_own_name_judges_nobody(
    workers: Any, here: sagas.Launched, tmp_path: Path, other: Session, looks_meanwhile: bool
) -> None:
    """What was seen before the own session was ended does not count after it."""
    die_in_the_middle(workers, tmp_path, s="start")
    ahead = 0.0
    looking = failover(PATIENCE, clock=lambda: time.monotonic() + ahead)
    for _ in range(5):
        assert looking.look() == []
    ahead = 10 * PATIENCE
    end_session(other, "worker-app", "here")
    if looks_meanwhile:
        with pytest.raises(sa.exc.OperationalError):
            looking.look()
        assert looking.look() == []
        assert not looking.is_dead("there")
    ahead = 0.0  # the clock is that of `since`
    assert own_lock().maintain() is Hold.HELD
    ahead = 10 * PATIENCE
    again = time.monotonic()
    (tmp_path / "gate").touch()
    taken_over(looking, "there")
    assert time.monotonic() - again >= PATIENCE


def test_only_one_takes_over(
    workers: Any,
    here: sagas.Launched,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who finds an executor dead while another is taking over from it leaves its sagas alone."""
    die_in_the_middle(workers, tmp_path, one="start", two="start")
    (tmp_path / "gate").touch()
    lock = acquire(database, "worker-app", "second")
    assert isinstance(lock, SessionLock)
    ahead = 0.0
    second = failover(PATIENCE, lock, lambda: time.monotonic() + ahead)
    for _ in range(3):
        assert second.look() == []
    ahead = 10 * PATIENCE
    resumed: list[str] = []
    resume = _dbos.resume

    def meanwhile(saga_id: str, queue: str | None = None) -> None:
        resumed.append(saga_id)
        assert second.look() == []
        resume(saga_id, queue)

    monkeypatch.setattr(_dbos, "resume", meanwhile)
    taken_over(failover(PATIENCE), "there")
    lock.release()
    assert sorted(resumed) == ["one", "two"]


def test_what_becomes_of_marked_sagas(workers: Any, here: sagas.Launched, tmp_path: Path) -> None:
    """A saga that was taken over too often is parked; one that was stopped is not resumed."""
    die_in_the_middle(workers, tmp_path, often="start", parked="start", terminated="start")
    for saga_id, marks in {
        "often": {"sagas.takeovers": 5, "own": "kept"},
        "parked": {"sagas.parked": {"reason": "before", "time": 1}},
        "terminated": {"sagas.terminated": {"reason": "by hand"}},
    }.items():
        DBOS.update_workflow_attributes(saga_id, marks, merge=True)
    [takeover] = taken_over(failover(PATIENCE), "there")
    assert takeover.parked == ("often",)
    assert sorted(takeover.finished) == ["parked", "terminated"]
    rows = {r.workflow_id: r for r in DBOS.list_workflows(workflow_ids=list(ALL_MARKED))}
    assert {r.status for r in rows.values()} == {"CANCELLED"}
    often = rows["often"].attributes
    assert often is not None
    assert often["own"] == "kept"
    assert "max_recovery_attempts (5)" in often["sagas.parked"]["reason"]
    assert isinstance(often["sagas.parked"]["time"], int)
    before = rows["parked"].attributes
    assert before is not None
    assert before["sagas.parked"] == {"reason": "before", "time": 1}


ALL_MARKED = ("often", "parked", "terminated")


def test_acting_in_a_dead_executors_name(
    workers: Any, here: sagas.Launched, tmp_path: Path
) -> None:
    """An executor without running sagas can be asked for; its name is had only if it is dead."""
    looking = failover(PATIENCE)
    living = workers("living")
    assert living.answer() == "launched living"
    for executor_id in ("gone", "living"):
        assert not looking.is_dead(executor_id)
    until(lambda: looking.look() == [] and looking.is_dead("gone"))
    assert not looking.is_dead("living")
    with looking.in_its_name("living") as had:
        assert not had
    with looking.in_its_name("gone") as had:
        assert had
        assert own_lock().holds("gone")
    assert not own_lock().holds("gone")
