"""Executions that end in a living process, and executions that are superseded there."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, DBOSClient, SetWorkflowID

import sagas
from sagas import (
    SagaClient,
    SagaHandle,
    SagaStatus,
    _catalog,
    _dbos,
    _registry,
    _running,
    _supervisor,
    _watch,
    saga,
)
from sagas._marks import TAKEOVERS
from sagas._strangers import Strangers
from steps import idempotency_key, step
from tests.support.stage import SAGAS, SCENES, Scene, async_saga

from .support import names, status, until

pytestmark = pytest.mark.slow

PATIENCE = 30.0
FORMS = ("sync", "async")
_numbers = itertools.count()


def staged(place: str = "", hold: tuple[str, ...] = (), refuse: tuple[str, ...] = ()) -> Scene:
    return Scene(f"death-{next(_numbers)}", place, hold, refuse)


def row(saga_id: str) -> Any:
    return DBOS.list_workflows(workflow_ids=[saga_id])[0]


# --- an awaiting task that is cancelled


def test_a_saga_outlives_the_task_that_awaits_its_workflow(app: sagas.Launched) -> None:
    """Awaited as a plain DBOS workflow and given up, it is resumed, and no step runs twice."""
    scene = staged(hold=("b",))

    async def give_up() -> None:
        with SetWorkflowID(scene.saga_id):
            awaited = asyncio.ensure_future(async_saga._workflow())
        await asyncio.to_thread(scene.wait_until_at, "b")
        awaited.cancel()
        await asyncio.sleep(0)
        # The step in flight belongs to the old execution: nobody takes the saga up before its end.
        assert not awaited.done()
        scene.open("b")
        with pytest.raises(asyncio.CancelledError):
            await awaited

    asyncio.run(give_up())
    assert scene.handle.result(timeout=PATIENCE) == "done"
    assert scene.calls == ["a", "b", "c", "d"]
    assert names(scene.saga_id) == [f"stage.async.{n}" for n in "abcd"]
    assert row(scene.saga_id).attributes[TAKEOVERS] == 1


def test_a_timeout_around_a_workflow_does_not_run_a_step_twice_at_a_time(
    app: sagas.Launched,
) -> None:
    """`asyncio.wait_for` around the workflow of a saga in a group of steps ends only with them."""
    scene = staged("group", hold=("b", "c"))

    async def give_up() -> None:
        with SetWorkflowID(scene.saga_id), pytest.raises(TimeoutError):
            await asyncio.wait_for(async_saga._workflow(), 0.3)

    giving_up = threading.Thread(target=asyncio.run, args=(give_up(),))
    giving_up.start()
    scene.wait_until_at("c")
    until(lambda: _running.of(scene.saga_id).stop is not None)
    scene.open("b")
    scene.open("c")
    giving_up.join()
    assert scene.handle.result(timeout=PATIENCE) == "done"
    assert sorted(scene.ledger) == ["a", "b", "c", "d"]


# --- errors that end an execution


class Crash(BaseException):
    """An end of the execution that is no failure of the saga."""


CRASHES: dict[str, list[BaseException]] = {}


def crash(place: str) -> None:
    left = CRASHES.get(place)
    if left:
        raise left.pop()


def undo(result: str) -> None:
    SCENES[idempotency_key().rpartition(":")[0]].ledger.append(f"-{result}")


async def undo_async(result: str) -> None:
    undo(result)


@step(undo=undo)
def crashing(name: str) -> str:
    SCENES[idempotency_key().rpartition(":")[0]].ledger.append(name)
    crash(f"step {name}")
    return name


@step(undo=undo_async)
async def crashing_async(name: str) -> str:
    SCENES[idempotency_key().rpartition(":")[0]].ledger.append(name)
    crash(f"step {name}")
    return name


@saga
def crashing_saga() -> str:
    crashing("a")
    crash("body")
    crashing("b")
    return "done"


@saga
async def crashing_async_saga() -> str:
    await crashing_async("a")
    crash("body")
    await crashing_async("b")
    return "done"


CRASHING: dict[str, Any] = {"sync": crashing_saga, "async": crashing_async_saga}


@pytest.fixture(autouse=True)
def no_crashes() -> None:
    CRASHES.clear()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("error", "place"), [(Crash, "body"), (Crash, "step b")])
def test_an_execution_that_ends_without_an_outcome_is_resumed(
    app: sagas.Launched, form: str, error: type[BaseException], place: str
) -> None:
    """Whatever ended it in a living process, the supervisor takes it up again by itself."""
    scene = staged()
    CRASHES[place] = [error()]
    CRASHING[form].options(saga_id=scene.saga_id).start()
    assert scene.handle.result(timeout=PATIENCE) == "done"
    assert scene.ledger == (["a", "b"] if place == "body" else ["a", "b", "b"])
    assert row(scene.saga_id).attributes[TAKEOVERS] == 1


def test_an_execution_that_always_dies_is_given_up(app: sagas.Launched) -> None:
    """A saga whose executions end again and again is parked, and can be retried."""
    scene = staged()

    CRASHES["body"] = [Crash() for _ in range(3)]
    dying.options(saga_id=scene.saga_id).start()
    until(lambda: scene.handle.status() is SagaStatus.PARKED)
    assert "2 times" in str(scene.handle.state().error)
    with SagaClient() as client:
        assert client.retry(scene.saga_id)
    assert scene.handle.result(timeout=PATIENCE) == "done"


@saga(max_recovery_attempts=2)
def dying() -> str:
    crashing("a")
    crash("body")
    return "done"


# --- superseded executions


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cancelled", [True, False])
def test_a_saga_resumed_by_hand_waits_for_its_old_execution(
    app: sagas.Launched, form: str, cancelled: bool
) -> None:
    """`DBOS.resume_workflow` while a step is running runs neither it nor the rest at once."""
    scene = staged(hold=("b",))
    SAGAS[form].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("b")
    if cancelled:
        DBOS.cancel_workflow(scene.saga_id)
    DBOS.resume_workflow(scene.saga_id)
    until(lambda: row(scene.saga_id).status == "PENDING" and executions(scene.saga_id) == 2)
    assert scene.calls == ["a", "b"]
    scene.open("b")
    until(lambda: scene.handle.status().is_final)
    assert scene.calls[:3] == ["a", "b", "c"], "b was run once"
    assert names(scene.saga_id)[:4] == [f"stage.{'async.' * (form == 'async')}{n}" for n in "abcd"]


def executions(saga_id: str) -> int:
    return sum(run.saga_id == saga_id for run in _running.all_runs())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["step", "retry"])
def test_an_old_execution_does_nothing_after_the_end(
    app: sagas.Launched, form: str, what: str
) -> None:
    """The saga ends only when the old execution can act no more: in a step, or in its backoff."""
    scene = staged(hold=("c",)) if what == "step" else staged(refuse=("c",))
    SAGAS[form].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("c")
    DBOS.cancel_workflow(scene.saga_id)
    if what == "step":
        until(lambda: _running.of(scene.saga_id).stop is not None)
        assert row(scene.saga_id).status == "CANCELLED", "it is not resumed before the step's end"
        scene.open("c")
    until(lambda: scene.handle.status() is SagaStatus.FAILED)
    assert _running.of(scene.saga_id) is None
    assert scene.ledger[-1] == "-a"
    assert scene.calls.count("c") == 1


# --- sagas whose code is not here


def enqueue_stranger(config: dict[str, Any]) -> tuple[str, str]:
    """Let this process dequeue a saga that another of its application knows; its ID, its name."""
    name = f"stranger-{next(_numbers)}"
    other = _catalog._workflow
    _dbos.publish_catalog(other, f"sagas.catalog:{name}", [name])
    DBOS.register_queue("strangers", polling_interval_sec=0.02)
    client = DBOSClient(system_database_url=config["system_database_url"])
    options = {"workflow_name": name, "queue_name": "strangers", "workflow_id": f"id-{name}"}
    client.enqueue({**options, "application_name": config["name"]})  # type: ignore[typeddict-item]
    client.destroy()
    until(lambda: row(f"id-{name}").status == "PENDING")
    return f"id-{name}", name


def test_a_saga_whose_code_is_not_here_is_parked(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dequeued a saga without having imported it says so; `retry` resumes it."""
    monkeypatch.setattr(_supervisor, "STRANGERS", 0.05)
    sagas.launch(config)
    saga_id, name = enqueue_stranger(config)
    until(lambda: status(saga_id) is SagaStatus.PARKED)
    handle = SagaHandle[str](saga_id)
    assert f"{name!r} is registered in this process" in str(handle.state().error)
    assert row(saga_id).status == "CANCELLED"

    @saga(name=name)
    def known_now() -> str:
        return "done"

    with SagaClient() as client:
        assert client.retry(saga_id)
    assert handle.result(timeout=PATIENCE) == "done"


def test_a_module_may_be_imported_late(app: sagas.Launched, config: dict[str, Any]) -> None:
    """Only what is unknown at two looks is parked; other processes' sagas never are."""
    saga_id, name = enqueue_stranger(config)
    version = DBOS.application_version
    here = Strangers(config["name"], version, row(saga_id).executor_id)
    for other in (
        Strangers(config["name"], version, "another-executor"),
        Strangers(config["name"], "another-version", row(saga_id).executor_id),
    ):
        other.look()
        other.look()
    here.look()
    assert row(saga_id).status == "PENDING"
    _registry.add(name, _registry.Rules())
    here.look()
    here.look()
    assert row(saga_id).status == "PENDING"


# --- sagas that are this process's, and do not run


LATE = "late-queue"
OFTEN = sagas.Supervision(interval=0.02)


class Looks:
    """How many looks for strangers there have been, and what each has found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[list[str]] = []
        look = Strangers.look

        def counted(strangers: Strangers) -> list[str]:
            found = look(strangers)
            self.found.append(found)
            return found

        monkeypatch.setattr(Strangers, "look", counted)
        monkeypatch.setattr(_supervisor, "STRANGERS", 0.02)

    def wait_for(self, more: int) -> None:
        """Wait for so many looks that begin from now on."""
        count = len(self.found) + 1
        until(lambda: len(self.found) >= count + more)


def claim_without_running(config: dict[str, Any], seen: Looks) -> tuple[Scene, int]:
    """A saga that this process has taken from a queue and does not run; the looks before that."""
    scene = staged()
    url = sa.make_url(config["system_database_url"])
    client = DBOSClient(system_database_url=config["system_database_url"])
    options = {"workflow_name": "stage-sync", "queue_name": LATE, "workflow_id": scene.saga_id}
    client.enqueue({**options, "application_name": config["name"]})  # type: ignore[typeddict-item]
    client.destroy()
    on_server = url.get_backend_name() != "sqlite"
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg") if on_server else url)
    claim = (
        f"UPDATE {'dbos.' * on_server}workflow_status SET status = 'PENDING', "
        "executor_id = :executor, application_version = :version, started_at_epoch_ms = :now, "
        "recovery_attempts = recovery_attempts + 1 WHERE workflow_uuid = :saga"
    )
    with engine.begin() as connection:
        values = {
            "executor": DBOS.executor_id,
            "version": DBOS.application_version,
            "now": int(time.time() * 1000),
            "saga": scene.saga_id,
        }
        before = len(seen.found)
        assert connection.execute(sa.text(claim), values).rowcount == 1
    engine.dispose()
    DBOS.register_queue(LATE, polling_interval_sec=0.02)
    return scene, before


@pytest.mark.parametrize(
    ("threads", "looks"), [(None, _watch.LOOKS), (2, _watch.LOOKS_FOR_THREADS)]
)
def test_a_saga_that_was_taken_and_does_not_run_goes_on(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, threads: int | None, looks: int
) -> None:
    """It is resumed once, after more looks where it may only wait for a thread."""
    seen = Looks(monkeypatch)
    settings = config if threads is None else {**config, "max_executor_threads": threads}
    sagas.launch(settings, supervision=OFTEN)
    scene, before = claim_without_running(config, seen)
    assert scene.handle.result(timeout=PATIENCE) == "done"
    assert scene.calls == ["a", "b", "c", "d"]
    first = next(n for n, found in enumerate(seen.found) if found)
    assert seen.found[first] == [scene.saga_id]
    assert first - before >= looks - 1
    seen.wait_for(2 * _watch.LOOKS)
    assert scene.bodies == 1
    assert row(scene.saga_id).attributes[TAKEOVERS] == 1
    assert [found for found in seen.found if found] == [[scene.saga_id]]


@pytest.mark.parametrize("form", FORMS)
def test_a_saga_that_runs_is_left_alone(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """However often it is looked at in a long step, it is not taken for one that does not run."""
    seen = Looks(monkeypatch)
    sagas.launch(config, supervision=OFTEN)
    scene = staged(hold=("c",))
    SAGAS[form].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("c")
    seen.wait_for(3 * _watch.LOOKS)
    scene.open("c")
    assert scene.handle.result(timeout=PATIENCE) == "done"
    seen.wait_for(2 * _watch.LOOKS)
    assert (scene.bodies, scene.calls) == (1, ["a", "b", "c", "d"])
    assert TAKEOVERS not in (row(scene.saga_id).attributes or {})
    assert not any(seen.found)


def test_a_saga_that_was_lost_and_runs_again_is_left_alone(app: sagas.Launched) -> None:
    """What ended one execution of it does not have it resumed at the end of the next one."""
    scene = staged(hold=("c",))
    SAGAS["sync"].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("c")
    supervisor = _supervisor.Supervisor(DBOS.executor_id, by_attributes=False)
    supervisor.lost(scene.saga_id)
    supervisor.round()
    assert not supervisor._lost, "the execution that goes on tells of its own end"
    scene.open("c")
    assert scene.handle.result(timeout=PATIENCE) == "done"
