"""What can be seen of a saga: snapshots made from DBOS's rows."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from sagas import (
    AuditEntry,
    CompensationFailedError,
    Failure,
    SagaFailedError,
    SagaParkedError,
    SagaStatus,
    StepRecord,
    StepStatus,
)
from sagas._history import at, failure_of, saga_state, step_records
from sagas._marks import (
    PARKED_MS,
    RETRY,
    TAKEOVERS,
    TIMEOUT,
    Marks,
    Parked,
    Resolution,
    Struggling,
    Turn,
    stop_attributes,
)
from sagas._messages import NONE
from sagas._stop import Stop, Why
from steps import NonRetryableError, RetriesExhaustedError, StepFailedError, StepTimeoutError
from steps.abc import Retried

BEGAN, ENDED = 1_700_000_000_000, 1_700_000_001_500


class GatewayError(Exception):
    """A foreign error with attributes of the same names as ours."""

    error_type = "card_declined"
    message = "shown to the customer"
    traceback = 17


def row(step_id: int, name: str, **changes: Any) -> dict[str, Any]:
    fields = {
        "function_id": step_id,
        "function_name": name,
        "output": None,
        "error": None,
        "started_at_epoch_ms": BEGAN,
        "completed_at_epoch_ms": ENDED,
    }
    return {**fields, **changes}


def workflow(**changes: Any) -> Any:
    fields = {
        "workflow_id": "s",
        "name": "fulfil",
        "status": "SUCCESS",
        "recovery_attempts": 1,
        "attributes": None,
        "error": None,
        "output": "done",
        "created_at": BEGAN,
        "updated_at": ENDED,
        "completed_at": ENDED,
        "queue_name": None,
        "executor_id": "local",
        "app_version": "v1",
        "delay_until_epoch_ms": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_a_completed_step() -> None:
    """A recorded result is a completed step with its times in UTC."""
    (record,) = step_records([row(1, "reserve", output="r1")])
    assert record == StepRecord(
        1,
        "reserve",
        StepStatus.COMPLETED,
        result="r1",
        executed_at=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        completed_at=datetime(2023, 11, 14, 22, 13, 21, 500_000, tzinfo=UTC),
    )


def test_a_step_that_was_retried() -> None:
    """The wrapping of a retried result is not seen, only the number of attempts."""
    (record,) = step_records([row(1, "reserve", output=Retried("r1", 4))])
    assert (record.result, record.attempts) == ("r1", 4)


def test_a_failed_step() -> None:
    """A recorded error is a failed step with its error in plain data."""
    (record,) = step_records([row(2, "charge", error=KeyError("card"))])
    assert record.status is StepStatus.FAILED
    assert record.error == Failure("charge", 2, "KeyError", "'card'")
    assert (record.result, record.attempts) == (None, 1)


def test_a_step_whose_retries_were_exhausted() -> None:
    """All the attempts of a failed step are counted."""
    error = RetriesExhaustedError("charge", 5, [OSError("down")])
    (record,) = step_records([row(2, "charge", error=error)])
    assert record.attempts == 5
    assert record.error is not None
    assert "OSError: down" in record.error.message


def test_a_step_that_gave_up_after_several_attempts() -> None:
    """A final error tells how many attempts led to it."""
    error = NonRetryableError("no")
    error.__dict__["saga_attempts"] = 3
    (record,) = step_records([row(2, "charge", error=error)])
    assert record.attempts == 3


def test_an_undone_step() -> None:
    """The record of an undo belongs to its step and is no step of its own."""
    rows = [
        row(1, "reserve", output="r1"),
        row(2, "charge", error=ValueError("x")),
        row(4, "undo:1:reserve", output=Retried(None, 2), completed_at_epoch_ms=ENDED + 1000),
    ]
    first, second = step_records(rows)
    assert (first.step_id, first.name, first.status) == (1, "reserve", StepStatus.COMPENSATED)
    assert (first.result, first.undo_attempts, first.undo_error) == ("r1", 2, None)
    assert first.undo_executed_at == at(BEGAN)
    assert first.compensated_at == datetime(2023, 11, 14, 22, 13, 22, 500_000, tzinfo=UTC)
    assert (second.status, second.undo_attempts) == (StepStatus.FAILED, 0)


def test_a_step_whose_undo_failed() -> None:
    """An undo that failed for good is told with its step."""
    rows = [row(1, "reserve"), row(4, "undo:1:reserve", error=OSError("closed"))]
    (record,) = step_records(rows)
    assert record.status is StepStatus.COMPENSATION_FAILED
    assert record.undo_error is not None
    assert (record.undo_error.step_id, record.undo_error.error_type) == (1, "OSError")
    assert record.undo_attempts == 1


def test_an_undo_that_succeeded_later() -> None:
    """After another try the step is compensated, and its old error is not shown any more."""
    rows = [
        row(1, "reserve"),
        row(4, "undo:1:reserve", error=OSError("closed")),
        row(7, "undo:1:reserve#1", error=OSError("still")),
        row(9, "undo:1:reserve#2", output=Retried(None, 3)),
    ]
    for order in (rows, rows[::-1]):
        (record,) = step_records(order)
        assert (record.name, record.status) == ("reserve", StepStatus.COMPENSATED)
        assert (record.undo_error, record.undo_attempts) == (None, 3)
    (record,) = step_records(rows[:3])
    assert record.status is StepStatus.COMPENSATION_FAILED
    assert record.undo_error is not None
    assert record.undo_error.message == "still"


def test_an_undo_of_something_that_has_no_row() -> None:
    """An undo pushed by hand is shown, though what it undoes is no step."""
    (record,) = step_records([row(4, "undo:2:refund: all#1")])
    assert (record.step_id, record.name, record.status) == (
        2,
        "refund: all",
        StepStatus.COMPENSATED,
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StepTimeoutError("charge", 3), StepStatus.TIMED_OUT),
        (
            RetriesExhaustedError("charge", 2, [OSError(), StepTimeoutError("charge", 3)]),
            StepStatus.TIMED_OUT,
        ),
        (
            RetriesExhaustedError("charge", 2, [StepTimeoutError("charge", 3), OSError()]),
            StepStatus.FAILED,
        ),
    ],
)
def test_a_step_that_took_too_long(error: Exception, status: StepStatus) -> None:
    """A step whose last attempt ran out of time is told from one that failed."""
    (record,) = step_records([row(2, "charge", error=error)])
    assert record.status is status


@pytest.mark.parametrize(
    ("output", "status", "result"),
    [
        ({"approved": True}, StepStatus.COMPLETED, {"approved": True}),
        (dict(NONE), StepStatus.COMPLETED, None),
        ({"__sagas__": "sentinel", "wait": 4}, StepStatus.FAILED, None),
        (None, StepStatus.COMPLETED, None),
    ],
)
def test_a_wait_for_a_message(output: Any, status: StepStatus, result: Any) -> None:
    """A wait is one step with the message for its result; its time limit is no step."""
    rows = [row(4, "DBOS.recv", output=output), row(5, "DBOS.sleep", output=1.0)]
    (record,) = step_records([*rows])
    assert (record.step_id, record.name) == (4, "receive")
    assert (record.status, record.result) == (status, result)


def test_a_wait_that_is_going_on() -> None:
    """A wait whose end is not recorded is pending; a sleep that others follow is none."""
    (first, waiting) = step_records([row(1, "a"), row(4, "DBOS.sleep", output=1.0)])
    assert (first.status, waiting.status) == (StepStatus.COMPLETED, StepStatus.PENDING)
    assert (waiting.step_id, waiting.name, waiting.completed_at) == (3, "receive", None)
    for rows in (
        [row(1, "a"), row(4, "DBOS.sleep", output=1.0), row(5, "b")],
        [row(3, "a"), row(4, "DBOS.sleep", output=1.0)],
        [row(2, "DBOS.sleep", output=1.0)],
    ):
        records = step_records(rows)
        assert [r.step_id for r in records] == [r["function_id"] for r in rows]
        assert [r.status for r in records] == [StepStatus.COMPLETED] * len(rows)


def test_a_wait_that_met_the_end_of_another() -> None:
    """A wait that ignored a sentinel of an earlier wait is one step all the same."""
    earlier = {"__sagas__": "sentinel", "wait": 3}
    own = {"__sagas__": "sentinel", "wait": 6}
    waits = [row(6, "DBOS.recv", output=earlier), row(7, "DBOS.sleep", output=1.0)]
    for output, status in ((own, StepStatus.FAILED), ("yes", StepStatus.COMPLETED)):
        rows = [*waits, row(8, "DBOS.recv", output=output), row(9, "DBOS.sleep", output=1.0)]
        (record,) = step_records(rows)
        assert (record.step_id, record.status) == (8, status)


def test_a_raw_sleep_is_a_step() -> None:
    """A `DBOS.sleep` that belongs to no wait is shown."""
    rows = [row(4, "DBOS.recv"), row(6, "DBOS.sleep"), row(8, "DBOS.sleep")]
    assert [r.step_id for r in step_records(rows)] == [4, 6, 8]


def test_a_result_that_looks_like_ours_is_the_users() -> None:
    """What a step returned is shown as it is, whatever its keys."""
    (record,) = step_records([row(1, "a", output=dict(NONE))])
    assert (record.status, record.result) == (StepStatus.COMPLETED, NONE)


def test_a_step_that_was_resolved() -> None:
    """A step that a person has undone says so, with the note, also before its saga has noticed."""
    marks = Marks(
        resolved={1: Resolution("by phone", "ann"), 2: Resolution("x"), 7: Resolution("y")}
    )
    recorded = {"__sagas__": "resolved", "note": "by mail", "by": "ann"}
    rows = [
        row(1, "reserve"),
        row(2, "charge"),
        row(3, "pack"),
        row(5, "undo:3:pack", error=OSError()),
        row(6, "undo:2:charge"),
        row(8, "undo:3:pack#1", output=recorded),
    ]
    states = {r.step_id: (r.name, r.status, r.note) for r in step_records(rows, marks)}
    assert states == {
        1: ("reserve", StepStatus.RESOLVED, "by phone"),
        2: ("charge", StepStatus.COMPENSATED, None),
        3: ("pack", StepStatus.RESOLVED, "by mail"),
        7: ("?", StepStatus.RESOLVED, "y"),
    }


def test_a_step_whose_outcome_is_unknown() -> None:
    """The step that a saga is parked for is shown, though nothing of it is recorded."""
    marks = Marks(parked=Parked("unknown", 5, 2))
    first, second = step_records([row(1, "reserve")], marks)
    assert (first.status, second.status) == (StepStatus.COMPLETED, StepStatus.UNKNOWN)
    assert (second.step_id, second.name, second.attempts) == (2, "?", 0)
    (record,) = step_records([row(2, "charge", error=OSError())], marks)
    assert (record.name, record.status) == ("charge", StepStatus.UNKNOWN)
    (record,) = step_records([], Marks(parked=marks.parked, resolved={2: Resolution("no")}))
    assert record.status is StepStatus.RESOLVED


def test_steps_are_in_the_order_of_calls() -> None:
    """Whatever the order of the rows, the steps come by ID."""
    records = step_records([row(9, "c"), row(2, "a"), row(5, "b")])
    assert [r.step_id for r in records] == [2, 5, 9]
    assert step_records([]) == ()


def test_a_step_without_times() -> None:
    """A row without times gives a record without times."""
    (record,) = step_records([row(1, "a", started_at_epoch_ms=None, completed_at_epoch_ms=None)])
    assert (record.executed_at, record.completed_at) == (None, None)


def test_an_error_that_no_longer_loads() -> None:
    """An error whose class is gone is shown for what is left of it, and counts as failed."""
    (record,) = step_records([row(1, "a", error="gASVMAAA" * 100)])
    assert record.status is StepStatus.FAILED
    assert record.error is not None
    assert record.error.error_type == "unknown"
    assert "no longer loads" in record.error.message
    assert len(record.error.message) < 300


def test_a_failure_in_plain_data_tells_the_original() -> None:
    """An error that could not travel is told by its own class, text and traceback."""
    failure = failure_of(StepFailedError("shop.CardError", "no", "Traceback ..."), "charge", 2)
    assert failure == Failure("charge", 2, "shop.CardError", "no", "Traceback ...")


def test_a_foreign_error_is_told_by_its_class() -> None:
    """Attributes of a user's error that are called like ours do not pass for its class."""
    failure = failure_of(GatewayError("declined"), "charge", 2)
    assert failure == Failure("charge", 2, f"{__name__}.GatewayError", "declined")


@pytest.mark.parametrize(("ms", "moment"), [(None, None), (0, datetime(1970, 1, 1, tzinfo=UTC))])
def test_moments(ms: int | None, moment: datetime | None) -> None:
    """Epoch milliseconds are moments in UTC; none is none."""
    assert at(ms) == moment


def test_the_state_of_a_completed_saga() -> None:
    """A completed saga shows its result, and no error."""
    state = saga_state(workflow(), (StepRecord(1, "a", StepStatus.COMPLETED),))
    assert (state.status, state.result, state.error) == (SagaStatus.COMPLETED, "done", None)
    assert (state.saga_id, state.name, state.executor_id, state.app_version) == (
        "s",
        "fulfil",
        "local",
        "v1",
    )
    assert state.completed_at == at(ENDED)
    assert len(state.steps) == 1
    assert not state.needs_attention


def test_the_state_of_a_failed_saga() -> None:
    """A failed saga shows its outcome and why it turned round."""
    cause = Failure("a", 1, "E", "m")
    error = SagaFailedError("x", saga_id="s", failure=cause)
    state = saga_state(workflow(status="ERROR", error=error, output=None))
    assert (state.status, state.error, state.failure) == (SagaStatus.FAILED, error, cause)
    assert state.reason is None


def test_the_state_of_a_saga_that_is_compensating() -> None:
    """Why it turned round is there while it is being undone; it has not ended yet."""
    cause = Failure("a", 1, "E", "m")
    attributes = {"order": 7, **Turn(2, cause, BEGAN).attributes()}
    state = saga_state(workflow(status="PENDING", attributes=attributes, completed_at=None))
    assert (state.status, state.failure, state.error) == (SagaStatus.COMPENSATING, cause, None)
    assert state.attributes == {"order": 7}
    assert (state.result, state.completed_at) == (None, None)
    assert state.turned_at == at(BEGAN)


@pytest.mark.parametrize(
    "error",
    [
        SagaParkedError("x", saga_id="s", reason="code changed"),
        CompensationFailedError("x", saga_id="s", reason="code changed"),
    ],
)
def test_the_state_of_a_parked_saga(error: SagaParkedError) -> None:
    """A parked saga asks for a person and says why."""
    state = saga_state(workflow(status="ERROR", error=error, output=None))
    assert (state.status, state.reason) == (SagaStatus.PARKED, "code changed")
    assert state.needs_attention


@pytest.mark.parametrize(
    ("changes", "status", "queue"),
    [
        ({"queue_name": "orders", "recovery_attempts": 0}, SagaStatus.STARTED, "orders"),
        ({"queue_name": "orders", "recovery_attempts": None}, SagaStatus.STARTED, "orders"),
        ({"queue_name": "orders", "recovery_attempts": 2}, SagaStatus.PENDING, "orders"),
        ({"queue_name": "_dbos_internal_queue", "recovery_attempts": 0}, SagaStatus.PENDING, None),
    ],
)
def test_the_state_of_a_saga_in_a_queue(
    changes: dict[str, Any], status: SagaStatus, queue: str | None
) -> None:
    """A saga that waits to be resumed has begun; one that waits for its first run has not."""
    state = saga_state(workflow(status="ENQUEUED", completed_at=None, output=None, **changes))
    assert (state.status, state.queue) == (status, queue)


@pytest.mark.parametrize(
    "attributes",
    [{TAKEOVERS: 1}, {RETRY: 1}, {PARKED_MS: 1}, Parked("x", 5, 1).attributes()],
    ids=lambda a: next(iter(a)),
)
def test_the_state_of_a_saga_that_was_resumed(attributes: dict[str, Any]) -> None:
    """DBOS counts anew when it resumes: the marks tell that the saga had begun all the same."""
    state = saga_state(
        workflow(status="ENQUEUED", queue_name="orders", recovery_attempts=0, attributes=attributes)
    )
    assert state.status is SagaStatus.PENDING


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"attributes": {TIMEOUT: 60}}, 60),
        ({"attributes": {TIMEOUT: 0.5, PARKED_MS: 2_000}}, 2.5),
        ({"attributes": {TIMEOUT: 60}, "delay_until_epoch_ms": BEGAN + 7_000}, 67),
        ({"attributes": {TIMEOUT: 60}, "delay_until_epoch_ms": BEGAN - 7_000}, 60),
        ({"attributes": {PARKED_MS: 5}}, None),
        ({"attributes": {TIMEOUT: 1e300}}, None),
        ({"attributes": {TIMEOUT: 60}, "created_at": None}, None),
    ],
)
def test_the_deadline_of_a_saga(changes: dict[str, Any], seconds: float | None) -> None:
    """A saga's time runs from when it could begin, and stands still while it is parked."""
    began = at(BEGAN)
    assert began is not None
    deadline = None if seconds is None else began + timedelta(seconds=seconds)
    assert saga_state(workflow(**changes)).deadline == deadline


CANCEL = Stop(Why.CANCEL, "no stock", "ann")


@pytest.mark.parametrize(
    ("status", "more", "text"),
    [
        ("PENDING", {}, "cancelled by ann: no stock"),
        ("ENQUEUED", {}, "cancelled by ann: no stock"),
        ("CANCELLED", {}, "cancelled by ann: no stock"),
        ("PENDING", Turn(3, Failure(None, None, "E", "m")).attributes(), None),
        ("SUCCESS", {}, None),
        ("CANCELLED", Parked("x").attributes(), None),
    ],
)
def test_a_request_to_stop_is_shown(status: str, more: dict[str, Any], text: str | None) -> None:
    """A request shows as long as the saga has yet to follow it; no longer, and not too late."""
    attributes = {**stop_attributes(CANCEL), **more}
    assert saga_state(workflow(status=status, attributes=attributes)).stop_requested == text


def test_a_saga_that_struggles_asks_for_a_person() -> None:
    """An undo that fails again and again is named, with its attempts and its last error."""
    failing = Struggling(2, "reserve", 7, "closed").attributes()
    turn = Turn(3, Failure(None, None, "E", "m")).attributes()
    state = saga_state(workflow(status="PENDING", attributes={**failing, **turn}))
    assert state.needs_attention
    assert state.reason == (
        "the undo of step 2 'reserve' has failed 7 times and is tried again; the last error: closed"
    )
    forwards = saga_state(workflow(status="PENDING", attributes=failing))
    assert forwards.reason is not None
    assert forwards.reason.startswith("step 2 'reserve' has failed 7 times")
    ended = saga_state(workflow(attributes={**failing, **turn}))
    assert (ended.needs_attention, ended.reason) == (False, None)


def test_what_was_done_to_a_saga_is_shown() -> None:
    """The audit is part of the state, and no attribute of the user's."""
    entry = AuditEntry("cancel", BEGAN, "ann", "no stock")
    state = saga_state(workflow(attributes={"order": 7, **entry.attributes("a")}))
    assert (state.audit, state.attributes) == ((entry,), {"order": 7})


def test_a_state_without_its_result() -> None:
    """Where the result was not loaded, none is shown."""
    assert saga_state(workflow(output="not loaded"), loaded=False).result is None


def test_states_are_snapshots() -> None:
    """What was seen of a saga cannot be changed."""
    state = saga_state(workflow())
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.status = SagaStatus.FAILED  # type: ignore[misc]
