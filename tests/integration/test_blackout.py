"""The database goes away in the middle of everything: all sagas end right, without a hand."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, StepStatus, Supervision, _running, saga
from sagas._session import Session
from steps import idempotency_key, receive, receive_async, step
from tests.support.chaos import sample
from tests.support.ledger import Entry, first_undone, standing
from tests.support.server import Server, private_server
from tests.support.worker import own_lock

from ..conftest import FAST
from .support import until

pytestmark = pytest.mark.slow

ENTRIES: list[Entry] = []
LOCK = threading.Lock()
ACTS = 10


def write(kind: Literal["step", "undo"], name: str, done: bool) -> None:
    with LOCK:
        ENTRIES.append(Entry(kind, name, idempotency_key(), done))


def undo_act(result: int) -> None:
    time.sleep(0.1)
    write("undo", f"act {result}", True)


@step(undo=undo_act)
def act(number: int, seconds: float) -> int:
    time.sleep(seconds)
    write("step", f"act {number}", True)
    return number


async def undo_act_async(result: int) -> None:
    await asyncio.sleep(0.1)
    write("undo", f"act {result}", True)


@step(undo=undo_act_async)
async def act_async(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    write("step", f"act {number}", True)
    return number


@saga(name="running-in-the-dark")
def running() -> int:
    return sum(act(number, 0.1) for number in range(ACTS))


@saga(name="failing-in-the-dark")
def failing() -> None:
    for number in range(ACTS):
        act(number, 0.0)
    raise ValueError("as planned")


@saga(name="waiting-in-the-dark")
def waiting() -> str:
    act(0, 0.0)
    word: str = receive("go", timeout=60)
    act(1, 0.0)
    return word


@saga(name="running-in-the-dark-async")
async def running_async() -> int:
    found = 0
    for number in range(0, ACTS, 2):
        found += sum(await asyncio.gather(act_async(number, 0.1), act_async(number + 1, 0.2)))
    return found


@saga(name="failing-in-the-dark-async")
async def failing_async() -> None:
    for number in range(ACTS):
        await act_async(number, 0.0)
    raise ValueError("as planned")


@saga(name="waiting-in-the-dark-async")
async def waiting_async() -> str:
    await act_async(0, 0.0)
    word: str = await receive_async("go", timeout=60)
    await act_async(1, 0.0)
    return word


SAGAS = (running, failing, waiting, running_async, failing_async, waiting_async)
EACH = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with private_server() as found:
        yield found


@pytest.fixture(scope="module")
def application(server: Server) -> Iterator[sagas.Launched]:
    """An application that outlives all that happens to its database in this module."""
    yield launch(server)
    sagas.shutdown()


def launch(server: Server) -> sagas.Launched:
    config = {"name": "dark-app", "system_database_url": server.url, "log_level": "CRITICAL"}
    found = sagas.launch(config, supervision=Supervision(interval=0.2, failover=1))
    DBOS.register_queue(FAST, polling_interval_sec=0.01)
    return found


def end_all_sessions(server: Server) -> None:
    """End the sessions of everybody else."""
    session = Session(sa.make_url(server.url))
    session.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    session.close()


def kill_backends(server: Server) -> None:
    """End all sessions, again and again."""
    for _ in range(12):
        end_all_sessions(server)
        time.sleep(0.15)


def restart(mode: Literal["fast", "immediate"]) -> Callable[[Server], None]:
    """Stop the server, until everybody has noticed, and start it again."""

    def do(server: Server) -> None:
        server.stop(mode)
        until(lambda: not own_lock().held)
        server.start()

    return do


def is_listening(server: Server) -> bool:
    """Whether DBOS hears of messages again; what is sent before, it sees within a minute only."""
    session = Session(sa.make_url(server.url))
    try:
        [row] = session.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
        return bool(row[0])
    finally:
        session.close()


def by_saga() -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    with LOCK:
        entries = list(ENTRIES)
    for entry in entries:
        found[entry.key.rpartition(":")[0]].append(entry)
    return found


def is_amid(saga_id: str, entries: list[Entry]) -> bool:
    """Whether a saga is where the database is to go away."""
    if saga_id.startswith("waiting"):
        return waits(saga_id)
    wanted = "undo" if saga_id.startswith("failing") else "step"
    return any(e.kind == wanted for e in entries)


@pytest.mark.parametrize(
    "blackout",
    [
        pytest.param(restart("fast"), id="fast"),
        pytest.param(restart("immediate"), id="immediate"),
        pytest.param(kill_backends, id="kills"),
    ],
)
def test_the_database_goes_away(
    server: Server, application: sagas.Launched, blackout: Callable[[Server], None]
) -> None:
    """Running, unwinding and waiting sagas, sync and async, end as if nothing had happened."""
    ENTRIES.clear()
    run = f"{time.time_ns()}"
    started = {f"{one.name}-{run}-{n}": one for one in SAGAS for n in range(EACH)}
    for number, (saga_id, one) in enumerate(started.items()):
        queue = FAST if number % EACH == 0 else None
        one.options(saga_id=saga_id, queue=queue).start()
    until(lambda: all(is_amid(s, by_saga()[s]) for s in started))
    blackout(server)
    until(lambda: is_listening(server))
    with SagaClient() as client:
        for saga_id in started:
            if "waiting" in saga_id:
                client.send(saga_id, "go", "went")
        states = until(lambda: _ended(client, list(started)), timeout=60)
        ledgers = by_saga()
        for saga_id in started:
            _check(saga_id, states[saga_id], client.history(saga_id), ledgers[saga_id])
    until(lambda: own_lock().held)
    cancelled = waiting.options(saga_id=f"after-{run}").start()
    until(lambda: waits(cancelled.saga_id))
    DBOS.cancel_workflow(cancelled.saga_id)
    until(lambda: cancelled.status() is SagaStatus.FAILED)


def waits(saga_id: str) -> bool:
    run: Any = _running.of(saga_id)
    return run is not None and run.waiting is not None


def _ended(client: SagaClient, saga_ids: list[str]) -> dict[str, Any]:
    states = {s.saga_id: s for s in client.list(limit=1000) if s.saga_id in saga_ids}
    return states if all(s.status.is_final for s in states.values()) else {}


def _check(saga_id: str, state: Any, history: Any, ledger: list[Entry]) -> None:
    fails = "failing" in saga_id
    assert state.status is (SagaStatus.FAILED if fails else SagaStatus.COMPLETED), state
    acts = [r for r in history if r.name.startswith("act")]
    count = 2 if "waiting" in saga_id else ACTS
    assert len(acts) == count
    assert {r.status for r in acts} == {StepStatus.COMPENSATED if fails else StepStatus.COMPLETED}
    assert len(standing(ledger)) == (0 if fails else count)
    keys = [f"{saga_id}:{r.step_id}" for r in acts]
    assert first_undone(ledger) == (keys[::-1] if fails else [])


@pytest.mark.chaos
@pytest.mark.parametrize("seed", sample(range(8), every=8))
def test_sessions_end_while_sagas_are_dequeued(
    server: Server, application: sagas.Launched, seed: int
) -> None:
    """However often the database ends all sessions, no saga is forgotten on its way to a run."""
    ENTRIES.clear()
    run = f"{seed}-{time.time_ns()}"
    ids = [f"{one.name}-{run}-{n}" for n in range(12) for one in (failing, running_async)]
    stop = threading.Event()

    def kill() -> None:
        dice = random.Random(seed)
        while not stop.wait(dice.uniform(0.02, 0.4)):
            end_all_sessions(server)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for saga_id in ids:
            one = failing if saga_id.startswith("failing") else running_async
            one.options(saga_id=saga_id, queue=FAST).start()
        until(lambda: len(by_saga()) == len(ids), timeout=60)
    finally:
        stop.set()
        killer.join()
    with SagaClient() as client:
        states = until(lambda: _ended(client, ids), timeout=60)
        ledgers = by_saga()
        for saga_id in ids:
            _check(saga_id, states[saga_id], client.history(saga_id), ledgers[saga_id])


def test_a_process_ends_while_the_database_is_away(
    server: Server, application: sagas.Launched
) -> None:
    """`shutdown` waits for no database; what was running goes on at the next launch."""
    ENTRIES.clear()
    handle = running.options(saga_id=f"ended-{time.time_ns()}").start()
    until(lambda: ENTRIES)
    server.stop("fast")
    begun = time.monotonic()
    sagas.shutdown()
    assert time.monotonic() - begun < 20
    server.start()
    launch(server)
    assert SagaHandle[int](handle.saga_id).result(timeout=30) == sum(range(ACTS))
    assert len(standing(ENTRIES)) == ACTS
