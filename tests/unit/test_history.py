"""What can be seen of a saga: snapshots made from DBOS's rows."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from sagas import (
    CompensationFailedError,
    Failure,
    SagaFailedError,
    SagaParkedError,
    SagaStatus,
    StepRecord,
    StepStatus,
)
from sagas._history import at, failure_of, saga_state, step_records
from sagas._marks import Turn
from steps import NonRetryableError, RetriesExhaustedError, StepFailedError
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
        row(7, "undo:1:reserve#2"),
    ]
    (record,) = step_records(rows)
    assert (record.status, record.undo_error) == (StepStatus.COMPENSATED, None)


def test_an_undo_of_something_that_has_no_row() -> None:
    """An undo pushed by hand is shown, though what it undoes is no step."""
    (record,) = step_records([row(4, "undo:2:refund: all#1")])
    assert (record.step_id, record.name, record.status) == (
        2,
        "refund: all#1",
        StepStatus.COMPENSATED,
    )


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


def test_a_state_without_its_result() -> None:
    """Where the result was not loaded, none is shown."""
    assert saga_state(workflow(output="not loaded"), loaded=False).result is None


def test_states_are_snapshots() -> None:
    """What was seen of a saga cannot be changed."""
    state = saga_state(workflow())
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.status = SagaStatus.FAILED  # type: ignore[misc]
