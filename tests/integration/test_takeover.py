"""Workers that die, or seem to, under load: their sagas go on at the others, by `launch` alone."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from sagas import SagaClient, SagaState, SagaStatus, StepStatus
from sagas._marks import TAKEOVERS
from sagas._session import Session, lock_key
from tests.support.crew import APP, CONCURRENCY, Member, Worker, entries
from tests.support.ledger import Entry, first_undone, standing

from .support import end_session, until

pytestmark = [pytest.mark.parametrize("backend", ["postgres"]), pytest.mark.slow]


@pytest.fixture
def hire(database: str, tmp_path: Path) -> Iterator[Any]:
    """Start workers, which are launched when this returns; killed at the end."""
    crew: list[Worker] = []

    def hire(count: int, failover: float = 2.0) -> list[Worker]:
        new = [Worker(Member(str(tmp_path), database, failover)) for _ in range(count)]
        crew.extend(new)
        for worker in new:
            worker.await_launch()
        return new

    yield hire
    for worker in crew:
        worker.kill()


@pytest.fixture
def client(database: str) -> Iterator[SagaClient]:
    with SagaClient(database) as found:
        yield found


def all_ended(client: SagaClient, count: int) -> dict[str, SagaState]:
    """The states of all sagas, once they have come to their end."""

    def look() -> dict[str, SagaState]:
        states = {s.saga_id: s for s in client.list(limit=1000)}
        assert len(states) == count
        return states if all(s.status.is_final for s in states.values()) else {}

    return dict(until(look, timeout=30))


def most_at_once(folder: Path, saga: str, deaths: dict[int, float]) -> int:
    """How many bodies of steps and undos of a saga ran at the same time, at most."""
    changes: list[tuple[float, int]] = []
    open_: dict[tuple[int, str, str], float] = {}
    for entry in entries(folder):
        note = json.loads(entry.note)
        if note["saga"] != saga:
            continue
        place = note["pid"], entry.kind, entry.key
        if entry.done:
            del open_[place]
            changes.append((note["at"], -1))
        else:
            open_[place] = note["at"]
            changes.append((note["at"], 1))
    changes += [(deaths[pid], -1) for pid, _, _ in open_]
    most = running = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def by_saga(folder: Path) -> dict[str, list[Entry]]:
    """The ledger of each saga."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries(folder):
        found[entry.key.rpartition(":")[0]].append(entry)
    return found


def test_a_worker_is_killed_under_load(hire: Any, client: SagaClient, tmp_path: Path) -> None:
    """All sagas of a killed worker end on the others, none undone twice, its queue kept."""
    crew = hire(3)
    fails = {f"{kind}-{n}": n % 3 == 0 for kind in ("direct", "queued") for n in range(18)}
    for number, (saga_id, failing) in enumerate(fails.items()):
        how = "fails" if failing else "succeeds"
        assert crew[number % 3].tell(saga_id.split("-")[0], saga_id, how) == "ok"
    victim = crew[1]
    until(
        lambda: (
            sum(json.loads(e.note)["pid"] == victim.pid for e in entries(tmp_path)) > 20
            and any(e.kind == "undo" for e in entries(tmp_path))
        )
    )
    victim.kill()
    states = all_ended(client, len(fails))
    ledgers = by_saga(tmp_path)
    for saga_id, failing in fails.items():
        expected = SagaStatus.FAILED if failing else SagaStatus.COMPLETED
        assert states[saga_id].status is expected, states[saga_id]
        works = 4 if saga_id.startswith("direct") else 3
        rows = client.history(saga_id)
        assert [r.name for r in rows] == ["work"] * works
        undone = StepStatus.COMPENSATED if failing else StepStatus.COMPLETED
        assert {r.status for r in rows} == {undone}
        assert len(standing(ledgers[saga_id])) == (0 if failing else works)
        keys = [f"{saga_id}:{r.step_id}" for r in rows]
        assert first_undone(ledgers[saga_id]) == (keys[::-1] if failing else [])
    assert victim.died_at is not None
    most = most_at_once(tmp_path, "crew.queued", {victim.pid: victim.died_at})
    assert most == CONCURRENCY
    assert crew[0].is_alive
    assert crew[2].is_alive


def test_sagas_all_over_are_cancelled_in_dbos(
    hire: Any, client: SagaClient, database: str, tmp_path: Path
) -> None:
    """Each is turned round once, by whichever worker, and each of its undos runs once."""
    crew = hire(3)
    steps = {"waiting": (2,), "pausing": (1, 2), "receiving": (1,)}
    places = {f"{kind}-{n}": n % 3 for kind in steps for n in range(10)}
    for saga_id, number in places.items():
        assert crew[number].tell(saga_id.split("-")[0], saga_id) == "ok"
    held = {(f"{i}:2", False) if i.startswith("waiting") else (f"{i}:1", True) for i in places}
    until(lambda: held <= {(e.key, e.done) for e in entries(tmp_path)})
    dbos = DBOSClient(system_database_url=database)
    for saga_id in places:
        dbos.cancel_workflow(saga_id)
    (tmp_path / "gate").touch()
    states = all_ended(client, len(places))
    rows = {r.workflow_id: r for r in dbos.list_workflows()}
    ledgers = by_saga(tmp_path)
    for saga_id in places:
        assert states[saga_id].status is SagaStatus.FAILED, states[saga_id]
        assert rows[saga_id].attributes[TAKEOVERS] == 1
        done = [(e.kind, e.name) for e in ledgers[saga_id] if e.done]
        # A worker that did not run it settles the step that may have been interrupted.
        works = list(dict.fromkeys(name for kind, name in done if kind == "step"))
        count = len(works)
        assert count in steps[saga_id.split("-")[0]]
        assert works == [f"work {n}" for n in range(count)]
        assert [name for kind, name in done if kind == "undo"] == works[::-1]
        assert done[-count:] == [("undo", name) for name in works[::-1]]
        undone = [n.split(":")[1] for n in _names(dbos, saga_id) if n.startswith("undo:")]
        assert undone == [str(n) for n in range(count, 0, -1)]
    dbos.destroy()


def _names(dbos: DBOSClient, saga_id: str) -> list[str]:
    return [row["function_name"] for row in dbos.list_workflow_steps(saga_id)]


def test_a_poisonous_saga_is_parked(hire: Any, client: SagaClient, tmp_path: Path) -> None:
    """A saga that brings its worker down each time is not handed on for ever."""
    crew = hire(4, failover=0.8)
    assert crew[0].tell("poisonous", "poison") == "ok"
    assert crew[1].tell("waiting", "healthy") == "ok"
    until(lambda: client.get("poison").status is SagaStatus.PARKED, timeout=40)
    (tmp_path / "gate").touch()
    until(lambda: client.get("healthy").status is SagaStatus.COMPLETED, timeout=30)
    assert sum(worker.is_alive for worker in crew) == 1
    assert sum(e.name == "kill" for e in entries(tmp_path)) == 3
    state = client.get("poison")
    assert state.reason is not None
    assert "3 processes that died" in state.reason
    assert "max_recovery_attempts (2)" in state.reason
    assert standing(by_saga(tmp_path)["poison"]) == ["work 0"]


def test_a_worker_that_only_seemed_dead(
    hire: Any, client: SagaClient, database: str, tmp_path: Path
) -> None:
    """A worker that was paused until it counted as dead records nothing, and then works on."""
    paused, heir = hire(2)
    assert paused.tell("waiting", "lost") == "ok"
    until(lambda: any(e.name == "work 1" for e in entries(tmp_path)))
    paused.signal(signal.SIGSTOP)
    other = Session(sa.make_url(database))
    try:
        end_session(other, APP, paused.executor_id)
        until(lambda: client.get("lost").executor_id == heir.executor_id)
        until(lambda: sum(e.name == "work 1" for e in entries(tmp_path)) == 2)
        paused.signal(signal.SIGCONT)
        key = lock_key(APP, paused.executor_id)
        until(lambda: key in other.holders([key]))
    finally:
        other.close()
    (tmp_path / "gate").touch()
    until(lambda: client.get("lost").status is SagaStatus.COMPLETED)
    assert client.get("lost").executor_id == heir.executor_id
    works = [e for e in entries(tmp_path) if e.name == "work 2"]
    assert {json.loads(e.note)["pid"] for e in works} == {heir.pid}
    assert paused.tell("direct", "next", "succeeds") == "ok"
    until(lambda: client.get("next").status is SagaStatus.COMPLETED)
    assert client.get("next").executor_id == paused.executor_id
    paused.kill()
    assert "Traceback" not in paused.log
