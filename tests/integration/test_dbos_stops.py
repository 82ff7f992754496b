"""Ways in which DBOS stops a saga, other than a cancel in this process while it is running."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS, DBOSClient, SetWorkflowTimeout

import sagas
from sagas import (
    SagaCancelledError,
    SagaClient,
    SagaFailedError,
    SagaStatus,
    SagaTerminatedError,
    SagaTimeoutError,
    saga,
)
from sagas._marks import TAKEOVERS
from sagas._stop import Why
from steps import step
from tests.conftest import Launch
from tests.support.stage import LEFT, SAGAS, Scene, here, once_saga

from .support import UNWATCHED, has_left, names, stop_mark, take_up, until

pytestmark = pytest.mark.slow

PATIENCE = 30.0
FORMS = ("sync", "async")
_numbers = itertools.count()


def staged(place: str = "", hold: tuple[str, ...] = (), refuse: tuple[str, ...] = ()) -> Scene:
    return Scene(f"stopped-{next(_numbers)}", place, hold, refuse)


def start(saga: Any, scene: Scene, at: str) -> Scene:
    saga.options(saga_id=scene.saga_id).start()
    scene.wait_until_at(at)
    return scene


def undos(scene: Scene) -> list[str]:
    return [n.rpartition(".")[2] for n in names(scene.saga_id) if n.startswith("undo:")]


def row(scene: Scene) -> Any:
    return DBOS.list_workflows(workflow_ids=[scene.saga_id])[0]


def assert_undone(scene: Scene, *ledger: str, error: type[Exception] = SagaCancelledError) -> None:
    with pytest.raises(error):
        scene.handle.result(timeout=PATIENCE)
    assert scene.handle.status() is SagaStatus.FAILED
    assert scene.ledger == list(ledger)
    assert undos(scene) == [e[1:] for e in ledger if e.startswith("-")]


# --- from other processes


def by_command_line(url: str, saga_id: str) -> None:
    dbos = str(Path(sys.executable).with_name("dbos"))
    command = [dbos, "workflow", "cancel", saga_id, "--sys-db-url", url]
    subprocess.run(command, check=True, capture_output=True)


def by_client(url: str, saga_id: str) -> None:
    client = DBOSClient(system_database_url=url)
    try:
        client.cancel_workflow(saga_id)
    finally:
        client.destroy()


@pytest.mark.parametrize("form", FORMS)
def test_cancels_from_other_processes_are_found(
    app: sagas.Launched, database: str, form: str
) -> None:
    """A cancel of DBOS's client or command line is as good as one in this process."""
    scenes = [start(SAGAS[form], staged(hold=("c",)), "c") for _ in range(2)]
    for cancel, scene in zip((by_client, by_command_line), scenes, strict=True):
        cancel(database, scene.saga_id)
        scene.open("c")
    for scene in scenes:
        assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")


@pytest.mark.parametrize("form", FORMS)
def test_a_cancel_while_the_application_is_down_is_found_at_its_start(
    app: sagas.Launched, database: str, relaunch: Launch, form: str
) -> None:
    """The saga is undone at the next launch; the step that was interrupted is settled."""
    in_step = start(SAGAS[form], staged(hold=("c",)), "c")
    waiting = start(SAGAS[form], staged("receive"), "receive")
    sagas.shutdown()
    for scene in (in_step, waiting):
        by_client(database, scene.saga_id)
    in_step.open("c")
    until(lambda: in_step.ledger == ["a", "b", "c"])
    relaunch()
    assert_undone(in_step, "a", "b", "c", "c", "-c", "-b", "-a")
    assert waiting.handle.status() is not SagaStatus.COMPLETED
    with pytest.raises(SagaCancelledError):
        waiting.handle.result(timeout=PATIENCE)
    # Nobody knows any more whether c was begun after the wait: it is settled, unless the wait
    # itself was told of the cancel first.
    assert waiting.ledger == ["a", "b", "-b", "-a"]


# --- SetWorkflowTimeout


@pytest.mark.parametrize("form", FORMS)
def test_a_dbos_timeout_undoes_the_saga(app: sagas.Launched, form: str) -> None:
    """The saga ends as timed out, be its undos shorter or longer than the timeout."""
    short, long = staged(hold=("c",)), staged(hold=("c", "-c"))
    for scene in (short, long):
        saga = SAGAS[form]
        with SetWorkflowTimeout(0.5):
            saga.options(saga_id=scene.saga_id).start()
        scene.wait_until_at("c")
    for scene in (short, long):
        until(lambda scene=scene: row(scene).status == "CANCELLED")
        scene.open("c")
    long.wait_until_at("-c")
    until(lambda: row(long).status == "CANCELLED")
    long.open("-c")
    for scene in (short, long):
        assert_undone(scene, "a", "b", "c", "-c", "-b", "-a", error=SagaTimeoutError)
    assert long.calls == ["a", "b", "c", "-c", "-b", "-a"], "no undo was run twice"


# --- on_terminate


@pytest.mark.parametrize("form", FORMS)
def test_on_terminate_leave_leaves_it(app: sagas.Launched, database: str, form: str) -> None:
    """A DBOS cancel of such a saga undoes nothing; a request of ours still undoes it."""
    left, asked, both = (start(LEFT[form], staged(hold=("c",)), "c") for _ in range(3))
    DBOS.cancel_workflow(left.saga_id)
    with SagaClient(database) as client:
        assert client.cancel(asked.saga_id, "no stock")
        assert client.cancel(both.saga_id, "no stock")
        DBOS.cancel_workflow(both.saga_id)
    for scene in (left, asked, both):
        scene.open("c")
    with pytest.raises(SagaTerminatedError, match="cancelled in DBOS"):
        left.handle.result(timeout=PATIENCE)
    assert left.handle.status() is SagaStatus.TERMINATED
    assert left.ledger == ["a", "b", "c"]
    assert undos(left) == []
    for scene in (asked, both):
        assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")


# --- never begun


@pytest.mark.parametrize("form", FORMS)
def test_a_saga_that_never_began_is_cancelled_without_running(
    app: sagas.Launched, form: str
) -> None:
    """Enqueued or delayed and cancelled in DBOS, it is FAILED, and its body is not entered."""
    DBOS.register_queue("unserved", worker_concurrency=0)
    DBOS.register_queue("served")
    enqueued, delayed = staged(), staged()
    SAGAS[form].options(saga_id=enqueued.saga_id, queue="unserved").start()
    SAGAS[form].options(saga_id=delayed.saga_id, queue="served", delay=3600).start()
    for scene in (enqueued, delayed):
        assert scene.handle.status() is SagaStatus.STARTED
        DBOS.cancel_workflow(scene.saga_id)
    for scene in (enqueued, delayed):
        with pytest.raises(SagaCancelledError, match="before it began") as ended:
            scene.handle.result(timeout=PATIENCE)
        assert ended.value.undone == ()
        assert scene.handle.status() is SagaStatus.FAILED
        assert (scene.bodies, scene.ledger, names(scene.saga_id)) == (0, [], [])


# --- elsewhere


@step(name="stopped.c", undo=lambda result: here().act("-c"))
def frail() -> str:
    here().act("c")
    return "c"


@saga(name="stopped-frail")
def frail_saga() -> str:
    frail()
    return "done"


def test_what_was_known_here_is_out_of_date_once_another_process_ran_it(
    config: dict[str, Any],
) -> None:
    """A step that failed here before a process that died began it once more is settled."""
    sagas.launch(config, supervision=UNWATCHED)
    scene = start(frail_saga, staged(hold=("c",)), "c")
    scene.refuse.add("c")
    DBOS.cancel_workflow(scene.saga_id)
    scene.open("c")
    until(lambda: has_left(scene.saga_id))
    scene.refuse.clear()
    DBOS.update_workflow_attributes(scene.saga_id, {TAKEOVERS: 1}, merge=True)  # by the other
    take_up(scene.saga_id, stop_mark(Why.DBOS_CANCEL, "was cancelled in DBOS"))
    assert_undone(scene, "c", "-c")
    assert scene.calls == ["c", "c", "-c"]


# --- often


def test_cancels_do_not_count_as_deaths(app: sagas.Launched) -> None:
    """A saga that may be recovered once only is undone though it is cancelled several times."""
    scene = start(once_saga, staged(hold=("c", "-c", "-b")), "c")
    for place in ("c", "-c", "-b"):
        scene.wait_until_at(place)
        DBOS.cancel_workflow(scene.saga_id)
        scene.open(place)
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")
    assert scene.calls == ["a", "b", "c", "-c", "-b", "-a"]
    assert row(scene).attributes[TAKEOVERS] == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_result_that_is_waited_for_outlasts_the_cancel(app: sagas.Launched, form: str) -> None:
    """Whoever waits for a saga in DBOS's own transient CANCELLED gets how the saga ended."""
    scene = staged(hold=("c", "-a"))
    handle = SAGAS[form].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("c")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(h.result, timeout=PATIENCE) for h in (handle, scene.handle)]
        DBOS.cancel_workflow(scene.saga_id)
        scene.open("c")
        scene.wait_until_at("-a")
        assert scene.handle.status() is SagaStatus.COMPENSATING
        assert not any(w.done() for w in waiting)
        scene.open("-a")
        errors = [w.exception() for w in waiting]
    assert [type(e) for e in errors] == [SagaCancelledError] * 2
    for error in errors:
        assert isinstance(error, SagaFailedError)
        assert [ref.step_id for ref in error.undone] == [3, 2, 1]
