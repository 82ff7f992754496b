"""What a saga ends with: the errors, and the same errors found again in DBOS's rows."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from dbos import PortableWorkflowError

from sagas import (
    CompensationFailedError,
    Failure,
    NotUndone,
    SagaCancelledError,
    SagaFailedError,
    SagaOutcomeError,
    SagaParkedError,
    SagaTerminatedError,
    SagaTimeoutError,
    StepRef,
)
from sagas import _outcome as outcome
from sagas._marks import NEVER_RAN, Marks, Parked, Turn, stop_attributes, terminated_attributes
from sagas._stop import Stop, Why
from tests.support.labels import label

CAUSE = Failure("charge", 2, "shop.CardError", "no money", "Traceback ...")
UNDO_FAILURE = Failure("reserve", 1, "OSError", "warehouse closed", "Traceback ...")
FACTS: dict[str, Any] = {
    "saga_id": "order-7",
    "failure": CAUSE,
    "undone": [StepRef(3, "pack"), StepRef(1, "reserve")],
}

DEAD = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"

ERRORS = [
    SagaFailedError("failed", **FACTS),
    SagaFailedError("failed", saga_id="bare"),
    SagaCancelledError("cancelled", reason="customer", **FACTS),
    SagaTimeoutError("late", **FACTS),
    SagaParkedError("parked", reason="code changed", **FACTS),
    SagaTerminatedError("stopped", **FACTS),
    CompensationFailedError(
        "undo failed",
        reason="not undone: 1:reserve",
        not_undone=[NotUndone(1, "reserve", UNDO_FAILURE), NotUndone(0, "open", None)],
        **FACTS,
    ),
]


def status_row(**changes: Any) -> Any:
    """As much of DBOS's `WorkflowStatus` as matters here."""
    fields = {
        "workflow_id": "order-7",
        "name": "fulfil",
        "status": "ERROR",
        "attributes": None,
        "error": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def portable(error: SagaOutcomeError) -> PortableWorkflowError:
    """The error as portable JSON brings it back: name, message and data."""
    data = json.loads(json.dumps(error.data))
    return PortableWorkflowError(str(error), type(error).__name__, None, data)


def without_traceback(failure: Failure | None) -> Failure | None:
    return failure and replace(failure, traceback="")


def test_a_failed_saga_says_what_failed_and_what_was_undone() -> None:
    """The outcome names the saga, the step, its error and the steps undone, in order."""
    error = outcome.failed("order-7", "fulfil", Turn(3, CAUSE), FACTS["undone"])
    assert type(error) is SagaFailedError
    text = "'order-7' (fulfil): step 2 'charge' failed with shop.CardError: no money; undone: pack"
    assert text in str(error)
    assert (error.saga_id, error.failure, error.undone) == (
        "order-7",
        CAUSE,
        (StepRef(3, "pack"), StepRef(1, "reserve")),
    )


def test_a_failed_saga_without_undos_says_so() -> None:
    """Where nothing was to be undone, the message does not leave it open."""
    error = outcome.failed("s", "n", Turn(1, Failure(None, None, "ValueError", "bug")), [])
    assert "the saga's body failed with ValueError: bug; there was nothing to undo" in str(error)


@pytest.mark.parametrize(
    ("stop", "kind", "words"),
    [
        (Stop(Why.CANCEL, "no stock", "ann"), SagaCancelledError, "cancelled by ann: no stock;"),
        (Stop(Why.CANCEL, ""), SagaCancelledError, "(fulfil): cancelled; undone"),
        (Stop(Why.DEADLINE, ""), SagaTimeoutError, "its deadline passed; undone"),
        (Stop(Why.DBOS_CANCEL, "in the console"), SagaCancelledError, "in the console; undone"),
        (Stop(Why.DBOS_TIMEOUT, "after 1 s"), SagaTimeoutError, "after 1 s; undone"),
        (Stop(Why.DEAD_LETTER, "died 9 times"), SagaCancelledError, "died 9 times; undone"),
    ],
)
def test_a_saga_that_was_stopped_says_by_whom(
    stop: Stop, kind: type[SagaFailedError], words: str
) -> None:
    """Whoever stopped a saga, its outcome has the class for it, the reason, and what was undone."""
    error = outcome.failed("order-7", "fulfil", Turn(3, CAUSE, None, stop), FACTS["undone"])
    assert type(error) is kind
    assert words in str(error)
    assert error.undone == (StepRef(3, "pack"), StepRef(1, "reserve"))
    assert getattr(error, "reason", stop.reason) == stop.reason
    step = outcome.stopped_step("order-7", "fulfil", stop, began=True)
    assert type(step) is kind
    again = pickle.loads(pickle.dumps(step))
    assert outcome.stop_of(again) == stop
    assert outcome.had_begun(again)
    assert outcome.is_refusal(again)
    assert outcome.stop_of(error) is None


def test_a_failed_undo_is_named() -> None:
    """Both errors are kept: why the saga turned round, and why the undo failed."""
    left = [NotUndone(2, "reserve", UNDO_FAILURE), NotUndone(1, "open", None)]
    error = outcome.compensation_failed("order-7", "fulfil", CAUSE, [StepRef(3, "pack")], left)
    for words in ("no money", "2:reserve (OSError)", "1:open (not tried)", "warehouse closed"):
        assert words in str(error)
    assert error.not_undone == tuple(left)
    assert error.failure == CAUSE
    assert "reserve" in error.reason


def test_an_error_of_ours_is_the_outcome() -> None:
    """An outcome that DBOS pickled is found as it is."""
    for error in ERRORS:
        assert outcome.recorded(error) is error


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_portable_error_is_rebuilt(error: SagaOutcomeError) -> None:
    """An outcome that was stored in portable JSON comes back with its class and its facts."""
    back = outcome.recorded(portable(error))
    assert type(back) is type(error)
    assert back is not None
    assert back.args == error.args
    assert (back.saga_id, back.undone) == (error.saga_id, error.undone)
    assert back.failure == without_traceback(error.failure)


@pytest.mark.parametrize(
    "error", [e for e in ERRORS if hasattr(e, "reason")], ids=lambda e: type(e).__name__
)
def test_a_portable_error_keeps_its_reason(error: Any) -> None:
    """Why a saga was cancelled or parked is not lost in portable JSON."""
    back: Any = outcome.recorded(portable(error))
    assert back.reason == error.reason


def test_a_portable_error_keeps_what_was_not_undone() -> None:
    """Nothing hidden: the effects that stand are named in portable JSON too."""
    back = outcome.recorded(portable(ERRORS[-1]))
    assert isinstance(back, CompensationFailedError)
    first, second = back.not_undone
    assert (first.step_id, first.name, second.step_id, second.name) == (1, "reserve", 0, "open")
    assert second.failure is None
    assert first.failure is not None
    assert first.failure.error_type == "OSError"


@pytest.mark.parametrize(
    "error",
    [
        None,
        "SagaFailedError",
        ValueError("x"),
        PortableWorkflowError("m", "ValueError", None, {"saga_id": "s"}),
        PortableWorkflowError("m", "SagaFailedError", None, None),
        PortableWorkflowError("m", "SagaFailedError", None, {"other": 1}),
        PortableWorkflowError("m", "SagaFailedError", None, ["saga_id"]),
        PortableWorkflowError("m", "SagaError", None, {"saga_id": "s"}),
    ],
    ids=label,
)
def test_another_error_is_no_outcome(error: Any) -> None:
    """What is none of ours, or only has its name, is not taken for an outcome."""
    assert outcome.recorded(error) is None


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED", "PENDING", "SUCCESS"])
def test_a_saga_that_runs_or_completed_has_no_outcome_error(status: str) -> None:
    """As long as nothing is wrong there is nothing to raise."""
    assert outcome.ended_with(status_row(status=status)) is None


def test_an_outcome_is_read_from_the_row() -> None:
    """What DBOS recorded is what `result()` raises."""
    assert outcome.ended_with(status_row(error=ERRORS[0])) is ERRORS[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "CANCELLED", "attributes": Parked("code changed").attributes()}, "code"),
        ({"status": DEAD, "attributes": Parked("died", 5, 2).attributes()}, "died"),
        ({"error": ValueError("odd")}, "odd"),
        ({"error": "text that does not load"}, "text that does not load"),
    ],
)
def test_a_saga_that_cannot_go_on_is_parked(changes: dict[str, Any], words: str) -> None:
    """A saga that stands, or that has no outcome of ours, reads as parked, with a reason."""
    error = outcome.ended_with(status_row(**changes))
    assert type(error) is SagaParkedError
    assert words in error.reason
    assert words in str(error)
    assert "'order-7' (fulfil)" in str(error)
    assert error.failure is None


@pytest.mark.parametrize("status", ["CANCELLED", DEAD])
@pytest.mark.parametrize("attributes", [None, Turn(3, CAUSE).attributes()], ids=["", "turned"])
def test_a_saga_that_dbos_stopped_has_not_ended(status: str, attributes: Any) -> None:
    """What DBOS cancelled or gave up is yet to be undone: nobody who waits is told an end."""
    assert outcome.ended_with(status_row(status=status, attributes=attributes)) is None


def test_a_saga_that_never_ran_was_cancelled() -> None:
    """Who cancelled it, and that nothing was done, is told of a saga that never ran."""
    marks = {**stop_attributes(Stop(Why.CANCEL, "no stock", "ann")), NEVER_RAN: True}
    error = outcome.ended_with(status_row(status="CANCELLED", attributes=marks))
    assert isinstance(error, SagaCancelledError)
    assert error.reason == "no stock"
    assert "cancelled by ann: no stock, before it began; nothing was done" in str(error)


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"status": "CANCELLED"}, None),
        ({"status": DEAD}, None),
        ({"error": ERRORS[-1]}, None),
        ({"status": "CANCELLED", "attributes": Turn(3, CAUSE).attributes()}, CAUSE),
    ],
)
def test_a_terminated_saga_says_by_whom(changes: dict[str, Any], failure: Failure | None) -> None:
    """A terminated saga ends so wherever it stood, also where an undo of it had failed."""
    marks = {**changes.get("attributes", {}), **terminated_attributes("mess", "ann", 5)}
    error = outcome.ended_with(status_row(**{**changes, "attributes": marks}))
    assert type(error) is SagaTerminatedError
    assert "terminated by ann: mess" in str(error)
    assert error.failure == failure


def test_a_saga_that_was_parked_while_turning_round_keeps_its_cause() -> None:
    """Why it turned round is told beside why it is parked."""
    marks = {**Turn(3, CAUSE).attributes(), **Parked("code changed").attributes()}
    error = outcome.ended_with(status_row(status="CANCELLED", attributes=marks))
    assert error is not None
    assert Marks.parse(marks).turn == Turn(3, CAUSE)
    assert error.failure == CAUSE
