"""A saga that DBOS cancels, wherever it is, is undone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from dbos import DBOS

import sagas
from sagas import SagaCancelledError, SagaStatus
from tests.support.stage import SAGAS, Scene

from .support import names, until

pytestmark = pytest.mark.slow

FORMS = ("sync", "async")
PATIENCE = 30.0


def start(form: str, what: str, **scene: object) -> Scene:
    """Start a saga on a scene of its own, and wait until it is where it is to be held."""
    staged = Scene(f"{form}-{what}-{id(object())}", **scene)  # type: ignore[arg-type]
    SAGAS[form].options(saga_id=staged.saga_id).start()
    staged.wait_until_reached()
    return staged


def cancel(scene: Scene) -> None:
    """Cancel it in DBOS, as anybody may."""
    DBOS.cancel_workflow(scene.saga_id)


def assert_undone(scene: Scene, *ledger: str, recorded: str = "") -> None:
    """See that it ends as cancelled, and that this is all that has happened."""
    with pytest.raises(SagaCancelledError, match="was cancelled in DBOS"):
        scene.handle.result(timeout=PATIENCE)
    assert scene.handle.status() is SagaStatus.FAILED
    assert scene.ledger == list(ledger)
    undos = [n.rpartition(".")[2] for n in names(scene.saga_id) if n.startswith("undo:")]
    assert undos == [e[1:] for e in ledger if e.startswith("-")]


def in_step(form: str) -> None:
    """A step in flight ends, and is neither run again nor forgotten."""
    scene = start(form, "step", hold="c")
    cancel(scene)
    scene.open()
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")
    assert scene.calls.count("c") == 1


def in_step_that_fails(form: str) -> None:
    """A step in flight whose attempt fails is not tried again, and counts as not done."""
    scene = start(form, "failing", hold="c")
    scene.refuse.add("c")
    cancel(scene)
    scene.open()
    assert_undone(scene, "a", "b", "-b", "-a")
    assert scene.calls.count("c") == 1


def between_steps(form: str) -> None:
    """No further step begins."""
    scene = start(form, "between", hold="body")
    cancel(scene)
    scene.open()
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
    scene = start(form, "retry", refuse=("c",))
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")
    assert scene.calls.count("c") == 1


def in_retry_delay_of_an_attempted_step(form: str) -> None:
    """The undo of a step that has failed runs all the same, where it finds out for itself."""
    scene = start(form, "attempted", place="attempted", refuse=("c",))
    cancel(scene)
    assert_undone(scene, "a", "b", "-c", "-b", "-a")
    assert scene.calls.count("c") == 1


def after_the_last_step(form: str) -> None:
    """A body that comes to its end gains nothing by it."""
    scene = start(form, "end", hold="end")
    cancel(scene)
    scene.open()
    assert_undone(scene, "a", "b", "c", "d", "-d", "-c", "-b", "-a")


def twice(form: str) -> None:
    """Cancelled again while it is being undone, it still is."""
    scene = start(form, "twice", hold="c")
    cancel(scene)
    scene.hold = "-c"
    scene.reached.clear()
    scene.open()
    again = start(form, "unrelated", hold="end")  # meanwhile others go on
    scene._gate.clear()
    scene.wait_until_reached()
    cancel(scene)
    scene.open()
    assert_undone(scene, "a", "b", "c", "-c", "-b", "-a")
    again.open()
    assert again.handle.result(timeout=PATIENCE) == "done"


def twice_at_once(form: str) -> None:
    """Cancelled again before it is running again, it still is undone."""
    scene = start(form, "at-once", hold="body")
    cancel(scene)
    scene.open()
    until(lambda: DBOS.get_workflow_status(scene.saga_id).status == "ENQUEUED")  # type: ignore[union-attr]
    cancel(scene)
    assert_undone(scene, "a", "b", "-b", "-a")


CASES: tuple[Callable[[str], None], ...] = (
    in_step,
    in_step_that_fails,
    between_steps,
    in_receive,
    in_sleep,
    in_retry_delay,
    in_retry_delay_of_an_attempted_step,
    after_the_last_step,
    twice,
    twice_at_once,
)


@pytest.mark.parametrize("form", FORMS)
def test_a_running_saga_that_is_cancelled_in_dbos_is_undone(
    shared_app: sagas.Launched, form: str
) -> None:
    """Wherever it is: all that it has done is undone, newest first, each once, and it is FAILED."""
    with ThreadPoolExecutor(len(CASES)) as pool:  # each takes DBOS's second to be resumed
        running = [(case, pool.submit(case, form)) for case in CASES]
    failed = [f"{case.__name__}: {run.exception()!r}" for case, run in running if run.exception()]
    assert not failed, "\n\n".join(failed)
