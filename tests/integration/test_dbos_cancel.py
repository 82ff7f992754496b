"""A saga that DBOS cancels, wherever it is, is undone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from dbos import DBOS

import sagas
from sagas import SagaCancelledError, SagaFailedError, SagaStatus
from tests.support.stage import SAGAS, Scene

from .support import names, until

pytestmark = pytest.mark.slow

PATIENCE = 30.0
_numbers = itertools.count()


def start(
    form: str,
    at: str,
    *,
    place: str = "",
    hold: tuple[str, ...] = (),
    refuse: tuple[str, ...] = (),
) -> Scene:
    """Start a saga on a scene of its own, and wait until it has come there."""
    scene = Scene(f"{form}-{next(_numbers)}", place, hold, refuse)
    SAGAS[form].options(saga_id=scene.saga_id).start()
    scene.wait_until_at(at)
    return scene


def cancel(scene: Scene) -> None:
    """Cancel it in DBOS, as anybody may."""
    DBOS.cancel_workflow(scene.saga_id)


def until_resumed(scene: Scene) -> None:
    """Wait until the supervisor has resumed it."""
    until(lambda: DBOS.list_workflows(workflow_ids=[scene.saga_id])[0].status != "CANCELLED")


def assert_undone(
    scene: Scene, *ledger: str, cause: str = "was cancelled in DBOS", failed: bool = False
) -> None:
    """See that it ends as cancelled (or `failed` before), and this is all that has happened."""
    with pytest.raises(SagaFailedError, match=cause) as ended:
        scene.handle.result(timeout=PATIENCE)
    assert isinstance(ended.value, SagaCancelledError) is not failed
    assert scene.handle.status() is SagaStatus.FAILED
    assert scene.ledger == list(ledger)
    undos = [n.rpartition(".")[2] for n in names(scene.saga_id) if n.startswith("undo:")]
    assert undos == [e[1:] for e in ledger if e.startswith("-")]


def in_step(form: str) -> None:
    """A step in flight ends, and is neither run again nor forgotten."""
    scene = start(form, "c", hold=("c",))
    cancel(scene)
    scene.open("c")
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")
    assert scene.calls.count("c") == 1


def in_step_that_fails(form: str) -> None:
    """A step in flight whose attempt fails is not tried again, and counts as not done."""
    scene = start(form, "c", hold=("c",))
    scene.refuse.add("c")
    cancel(scene)
    scene.open("c")
    assert_undone(scene, "a", "b", "-b", "-a")
    assert scene.calls.count("c") == 1


def between_steps(form: str) -> None:
    """No further step begins."""
    scene = start(form, "body", hold=("body",))
    cancel(scene)
    scene.open("body")
    assert_undone(scene, "a", "b", "-b", "-a")


def in_receive(form: str) -> None:
    """A wait for a message ends."""
    scene = start(form, "receive", place="receive")
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")


def in_sleep(form: str) -> None:
    """A wait for time to pass ends."""
    scene = start(form, "sleep", place="sleep")
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")


def in_retry_delay(form: str) -> None:
    """A step that has failed, and waits to be tried again, is not."""
    scene = start(form, "c", refuse=("c",))
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")
    assert scene.calls.count("c") == 1


def in_retry_delay_of_an_attempted_step(form: str) -> None:
    """The undo of a step that has failed runs all the same, where it finds out for itself."""
    scene = start(form, "c", place="attempted", refuse=("c",))
    cancel(scene)
    assert_undone(scene, "a", "b", "-c", "-b", "-a")
    assert scene.calls.count("c") == 1


def after_the_last_step(form: str) -> None:
    """A body that comes to its end gains nothing by it."""
    scene = start(form, "end", hold=("end",))
    cancel(scene)
    scene.open("end")
    assert_undone(scene, "a", "b", "c", "d", "-d", "-c", "-b", "-a")


def in_undo(form: str) -> None:
    """An undo in flight ends and is not run again; the cause stays the one it turned round for."""
    scene = start(form, "-c", place="fail", hold=("-c",))
    cancel(scene)
    scene.open("-c")
    ledger = ("a", "b", "c", "d", "-d", "-c", "-b", "-a")
    assert_undone(scene, *ledger, cause="the body fails", failed=True)


def in_retry_delay_of_undo(form: str) -> None:
    """An undo that has failed is tried again when the saga is taken up again."""
    scene = start(form, "-b", place="fail", refuse=("-b",))
    scene.refuse.clear()
    cancel(scene)
    ledger = ("a", "b", "c", "d", "-d", "-c", "-b", "-a")
    assert_undone(scene, *ledger, cause="the body fails", failed=True)


def twice(form: str) -> None:
    """Cancelled again while it is being undone, it still is."""
    scene = start(form, "c", hold=("c", "-b"))
    cancel(scene)
    scene.open("c")
    scene.wait_until_at("-b")
    cancel(scene)
    scene.open("-b")
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")


def twice_at_once(form: str) -> None:
    """Cancelled again before it is running again, it still is undone."""
    scene = start(form, "body", hold=("body",))
    cancel(scene)
    scene.open("body")
    until_resumed(scene)
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")


def twice_in_step(form: str) -> None:
    """Cancelled again while the step is still running, it is undone once."""
    scene = start(form, "c", hold=("c",))
    cancel(scene)
    cancel(scene)
    scene.open("c")
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")


CASES: tuple[Callable[[str], None], ...] = (
    in_step,
    in_step_that_fails,
    between_steps,
    in_receive,
    in_sleep,
    in_retry_delay,
    in_retry_delay_of_an_attempted_step,
    after_the_last_step,
    in_undo,
    in_retry_delay_of_undo,
    twice,
    twice_at_once,
    twice_in_step,
)


def in_group(form: str) -> None:
    """All steps in flight end, and all are undone, by their IDs."""
    scene = start(form, "c", place="group", hold=("b", "c"))
    scene.wait_until_at("b")
    cancel(scene)
    scene.open("c")
    until(lambda: "c" in scene.ledger)
    scene.open("b")
    assert_undone(scene, "a", "c", "b", "-c", "-b", "-a")
    assert scene.calls.count("b") == scene.calls.count("c") == 1


def in_group_of_which_one_waits(form: str) -> None:
    """A step that waits for its next attempt does not hold up the others of its group."""
    scene = start(form, "c", place="group", hold=("b",), refuse=("c",))
    scene.wait_until_at("b")
    cancel(scene)
    scene.open("b")
    assert_undone(scene, "a", "b", "-b", "-a")
    assert scene.calls.count("c") == 1


def run_all(cases: tuple[Callable[[str], None], ...], form: str) -> None:
    """All at the same time: each takes DBOS's second to be resumed."""
    with ThreadPoolExecutor(len(cases)) as pool:
        running = [(case, pool.submit(case, form)) for case in cases]
    failed = [f"{case.__name__}: {run.exception()!r}" for case, run in running if run.exception()]
    assert not failed, "\n\n".join(failed)


def test_a_sync_saga_that_is_cancelled_in_dbos_is_undone(shared_app: sagas.Launched) -> None:
    """Wherever it is: all that it has done is undone, newest first, each once, and it is FAILED."""
    run_all(CASES, "sync")


def test_an_async_saga_that_is_cancelled_in_dbos_is_undone(shared_app: sagas.Launched) -> None:
    """Likewise, and with several steps in flight."""
    run_all((*CASES, in_group, in_group_of_which_one_waits), "async")
