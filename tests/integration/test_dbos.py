"""What this library relies on of DBOS. When one of these fails, DBOS has changed."""

from __future__ import annotations

import asyncio
import contextvars
import time
import uuid
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID
from dbos import error as dbos_error

import sagas
from sagas import _dbos

from ..conftest import FAST
from .support import Crash, names, until

SWITCH: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def off() -> None:
    SWITCH.clear()


def new_id() -> str:
    return str(uuid.uuid4())


@DBOS.workflow(name="facts.reserving")
def reserving() -> list[int]:
    first = DBOS.reserve_step()
    gap = DBOS.reserve_step()
    third = DBOS.reserve_step()
    third.run({"name": "third"}, lambda: None)
    first.run({"name": "first"}, lambda: None)
    return [first.step_id, gap.step_id, third.step_id]


def test_a_reservation_is_numbered_when_drawn(shared_app: sagas.Launched) -> None:
    """reserve_step gives its ID at once, may run later, and an unused one is a gap."""
    with SetWorkflowID(new_id()):
        handle = DBOS.start_workflow(reserving)
    assert handle.get_result() == [1, 2, 3]
    rows = DBOS.list_workflow_steps(handle.workflow_id)
    assert [(r["function_id"], r["function_name"]) for r in rows] == [(1, "first"), (3, "third")]


@DBOS.workflow(name="facts.looking")
def looking() -> str:
    contextvars.Context().run(DBOS.get_workflow_status, str(DBOS.workflow_id))
    mark: Any = {"k": 1}
    contextvars.Context().run(
        lambda: DBOS.update_workflow_attributes(SWITCH["id"], mark, merge=True)
    )
    return "done"


def test_calls_from_an_empty_context_are_no_steps(shared_app: sagas.Launched) -> None:
    """What is asked of DBOS from an empty context is not recorded in the workflow."""
    SWITCH["id"] = new_id()
    with SetWorkflowID(SWITCH["id"]):
        assert looking() == "done"
    assert names(SWITCH["id"]) == []
    row = DBOS.get_workflow_status(SWITCH["id"])
    assert row is not None
    assert row.attributes == {"k": 1}


@DBOS.workflow(name="facts.dying")
def dying() -> str:
    DBOS.reserve_step().run({"name": "a"}, lambda: "a")
    if SWITCH.pop("die", None):
        DBOS.reserve_step().run({"name": "b"}, _die)
    return "done"


def _die() -> None:
    raise Crash


def test_an_execution_that_dies_stays_pending(shared_app: sagas.Launched) -> None:
    """A BaseException of one's own is recorded nowhere; resume_workflow runs it again."""
    SWITCH["die"] = True
    with SetWorkflowID(saga_id := new_id()), pytest.raises(Crash):
        dying()
    row = DBOS.get_workflow_status(saga_id)
    assert row is not None
    assert row.status == "PENDING"
    assert names(saga_id) == ["a"]
    assert DBOS.resume_workflow(saga_id, queue_name=FAST).get_result() == "done"


@DBOS.workflow(name="facts.replaying")
def replaying() -> str:
    try:
        DBOS.reserve_step().run({"name": SWITCH["name"]}, lambda: "x")
    except Exception as error:
        return type(error).__name__
    if SWITCH.pop("die", None):
        raise Crash
    return "done"


def test_a_mismatch_is_an_ordinary_exception(shared_app: sagas.Launched) -> None:
    """DBOSUnexpectedStepError can be swallowed by any `except Exception`."""
    SWITCH.update(name="a", die=True)
    with SetWorkflowID(saga_id := new_id()), pytest.raises(Crash):
        replaying()
    SWITCH.update(name="b")
    assert DBOS.resume_workflow(saga_id, queue_name=FAST).get_result() == "DBOSUnexpectedStepError"


@DBOS.workflow(name="facts.cancelling")
def cancelling() -> str:
    contextvars.Context().run(DBOS.cancel_workflow, str(DBOS.workflow_id))
    SWITCH["cancelled"] = True
    DBOS.reserve_step().run({"name": "a"}, lambda: "a")
    return "done"


def test_a_cancelled_workflow_can_do_no_more(shared_app: sagas.Launched) -> None:
    """After a cancel the next step raises a BaseException; resume runs it under the same ID."""
    with SetWorkflowID(saga_id := new_id()):
        handle = DBOS.start_workflow(cancelling)
    with pytest.raises(dbos_error.DBOSAwaitedWorkflowCancelledError) as caught:
        handle.get_result()
    assert caught.value.workflow_id == saga_id
    assert not issubclass(dbos_error.DBOSWorkflowCancelledError, Exception)
    assert not issubclass(dbos_error.DBOSWorkflowConflictIDError, Exception)


@DBOS.workflow(name="facts.waiting")
def waiting() -> str:
    return str(DBOS.recv("topic", timeout_seconds=5))


def test_resume_keeps_messages_and_attributes(shared_app: sagas.Launched) -> None:
    """A workflow that was cancelled and resumed gets what was sent to it meanwhile."""
    with SetWorkflowID(saga_id := new_id()):
        DBOS.start_workflow(waiting)
    mark: Any = {"kept": True}
    DBOS.update_workflow_attributes(saga_id, mark, merge=True)
    DBOS.cancel_workflow(saga_id)
    DBOS.send(saga_id, "hello", "topic")
    handle: Any = DBOS.resume_workflow(saga_id, queue_name=FAST)
    assert handle.get_result() == "hello"
    assert handle.get_status().attributes == mark


def test_a_taken_id_is_refused(shared_app: sagas.Launched) -> None:
    """With the policy 'reject' a start under an ID in use raises, and says so."""
    saga_id = new_id()
    with SetWorkflowID(saga_id):
        assert DBOS.start_workflow(reserving).get_result() == [1, 2, 3]
    with (
        SetWorkflowID(saga_id, workflow_id_reuse_policy="reject"),
        pytest.raises(dbos_error.DBOSWorkflowIDInUseError),
    ):
        reserving()


PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("facts_place", default="lost")


@DBOS.workflow(name="facts.place")
def place() -> str:
    return PLACE.get()


@DBOS.workflow(name="facts.place_async")
async def place_async() -> str:
    return PLACE.get()


def test_which_starts_carry_the_context(shared_app: sagas.Launched) -> None:
    """Direct calls and async starts carry ContextVars to the body, start_workflow does not."""
    token = PLACE.set("carried")
    try:
        assert place() == "carried"
        assert DBOS.start_workflow(place).get_result() == "lost"

        async def main() -> None:
            assert await place_async() == "carried"
            assert await (await DBOS.start_workflow_async(place_async)).get_result() == "carried"

        asyncio.run(main())
    finally:
        PLACE.reset(token)


def test_run_step_outside_a_workflow_uses_dbos_loop(shared_app: sagas.Launched) -> None:
    """In no workflow, run_step runs a coroutine function on the loop of async workflows."""

    async def loop() -> int:
        return id(asyncio.get_running_loop())

    @DBOS.workflow(name="facts.loop")
    async def of_workflows() -> int:
        return id(asyncio.get_running_loop())

    assert DBOS.run_step(None, loop) == DBOS.start_workflow(of_workflows).get_result()


def test_a_sync_step_of_an_async_workflow_runs_on_a_thread(shared_app: sagas.Launched) -> None:
    """StepReservation.run refuses a running loop, so a sync step cannot block it unnoticed."""

    @DBOS.workflow(name="facts.blocking")
    async def blocks() -> str:
        try:
            DBOS.reserve_step().run({"name": "x"}, lambda: time.sleep(0))
        except RuntimeError:
            return "refused"
        return "blocked"

    assert DBOS.start_workflow(blocks).get_result() == "refused"


def test_the_version_follows_the_source_of_the_saga(shared_app: sagas.Launched) -> None:
    """The workflow that DBOS hashes for the application's version shows the user's source."""
    import inspect

    @sagas.saga
    def shown() -> str:
        return "this very line"

    assert "this very line" in inspect.getsource(shown._workflow)


@DBOS.workflow(name="facts.errors")
def errors() -> str:
    step = DBOS.reserve_step()
    try:
        step.run({"name": "a"}, _fail)
    except ValueError as error:
        same = error is SWITCH.get("error")
        if SWITCH.pop("die", None):
            raise Crash from None
        return f"live {same}" if same else "replayed"
    return "no error"


def _fail() -> None:
    SWITCH["error"] = ValueError("x")
    raise SWITCH["error"]


def test_a_live_error_is_the_very_object(shared_app: sagas.Launched) -> None:
    """What a step raises live is the object its function raised; a replay makes a new one."""
    assert errors() == "live True"
    SWITCH["die"] = True
    with SetWorkflowID(saga_id := new_id()), pytest.raises(Crash):
        errors()
    handle: Any = DBOS.resume_workflow(saga_id, queue_name=FAST)
    assert handle.get_result() == "replayed"


def test_list_filters_what_the_client_needs(shared_app: sagas.Launched) -> None:
    """list_workflows filters by names and states, newest first, without inputs and outputs."""
    ids = [new_id(), new_id()]
    for saga_id in ids:
        with SetWorkflowID(saga_id):
            DBOS.start_workflow(reserving).get_result()
        until(lambda i=saga_id: DBOS.get_workflow_status(i))
        time.sleep(0.002)
    rows = DBOS.list_workflows(
        name=["facts.reserving", "nothing"],
        status=["SUCCESS"],
        limit=2,
        sort_desc=True,
        load_input=False,
        load_output=False,
    )
    assert [row.workflow_id for row in rows] == ids[::-1]
    assert rows[0].output is None


@DBOS.workflow(name="facts.gated")
def gated() -> None:
    until(lambda: SWITCH.get("gate"))


@pytest.mark.parametrize("queued", [True, False])
def test_a_resumed_workflow_and_its_queue(shared_app: sagas.Launched, queued: bool) -> None:
    """A running workflow can be resumed to its queue; DBOS's own queues have a reserved prefix."""
    with SetWorkflowID(new_id()):
        handle = DBOS.enqueue_workflow(FAST, gated) if queued else DBOS.start_workflow(gated)
    saga_id = handle.workflow_id
    until(lambda: handle.get_status().status == "PENDING")
    [row] = DBOS.list_workflows(workflow_ids=[saga_id], load_input=False, load_output=False)
    assert row.application_name == "test-app"
    assert row.queue_name == (FAST if queued else None)
    _dbos.resume(saga_id, _dbos.queue_of(row))
    [row] = DBOS.list_workflows(workflow_ids=[saga_id], load_input=False, load_output=False)
    assert _dbos.queue_of(row) == (FAST if queued else None)
    assert str(row.queue_name).startswith(_dbos.RESERVED_QUEUES) is not queued
    SWITCH["gate"] = True
    handle.get_result()


def test_running_workflows_by_name_and_application(shared_app: sagas.Launched) -> None:
    """Rows are listed by name, application, version and executor; without a name, none."""
    with SetWorkflowID(new_id()):
        handle = DBOS.start_workflow(gated)
    version, executor = _dbos.app_version(), DBOS.executor_id

    def listed(*args: Any, **more: Any) -> bool:
        return handle.workflow_id in {r.workflow_id for r in _dbos.pending_rows(*args, **more)}

    assert listed(["facts.gated"], "test-app", version)
    assert listed(["x", "facts.gated"], "test-app", version, executor_id=executor)
    assert not listed(["facts.gated"], "test-app", version, executor_id="x")
    assert not listed(["facts.gated"], "test-app", "x")
    assert not listed(["facts.gated"], "other-app", version)
    assert not listed(["x"], "test-app", version)
    assert not listed([], "test-app", version)
    SWITCH["gate"] = True
    handle.get_result()
    assert not listed(["facts.gated"], "test-app", version)
