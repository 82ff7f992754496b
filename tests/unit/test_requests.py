"""What a request from outside may do to a saga."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sagas import (
    CompensationFailedError,
    Failure,
    NotUndone,
    RequestResult,
    SagaCancelledError,
    SagaFailedError,
    SagaParkedError,
    SagaStatus,
    SagaTerminatedError,
    SagaUsageError,
    StepRecord,
    StepStatus,
)
from sagas import _requests as requests
from sagas._marks import (
    NEVER_RAN,
    PARKED_MS,
    REQUEST,
    RETRY,
    STOP,
    STRUGGLING,
    TERMINATED,
    Marks,
    Parked,
    Resolution,
    Turn,
)
from sagas._requests import Act, Refusal, Seen, Way
from sagas._stop import Stop, Why

DEAD = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
NOW = 10_000
ASKED = Stop(Why.CANCEL, "no stock", "ann", NOW)
TURN = Turn(3, Failure(None, None, "E", "m"))
PARKED = Parked("code changed", 4_000)
UNDO_FAILED = CompensationFailedError(
    "parked", saga_id="s", reason="not undone", not_undone=[NotUndone(9, "by hand", None)]
)
MACHINERY = SagaParkedError("parked", saga_id="s", reason="code changed")


def seen(
    status: SagaStatus, dbos_status: str = "PENDING", error: Any = None, **changes: Any
) -> Seen:
    marks = Marks(**changes)
    since = marks.parked.time if marks.parked is not None else None
    return Seen("s", "fulfil", dbos_status, status, marks, error, parked_since=since)


STARTED = seen(SagaStatus.STARTED, "ENQUEUED")
PENDING = seen(SagaStatus.PENDING)
RECOVERING = seen(SagaStatus.PENDING, "ENQUEUED")
STOPPED = seen(SagaStatus.PENDING, "CANCELLED")
ASKED_ALREADY = seen(SagaStatus.PENDING, stop=Stop(Why.CANCEL, "before"))
TERMINATING = seen(SagaStatus.PENDING, terminated=ASKED)
COMPENSATING = seen(SagaStatus.COMPENSATING, turn=TURN)
REAPED = seen(SagaStatus.COMPENSATING, "CANCELLED", turn=TURN)
COMPLETED = seen(SagaStatus.COMPLETED, "SUCCESS")
FAILED = seen(SagaStatus.FAILED, "ERROR", SagaFailedError("it failed", saga_id="s"))
CANCELLED = seen(SagaStatus.FAILED, "ERROR", SagaCancelledError("it was cancelled", saga_id="s"))
ENDED = seen(SagaStatus.TERMINATED, "CANCELLED", SagaTerminatedError("stopped", saga_id="s"))
PARKED_FORWARDS = seen(SagaStatus.PARKED, "CANCELLED", MACHINERY, parked=PARKED)
PARKED_DEAD = seen(SagaStatus.PARKED, DEAD, MACHINERY, parked=PARKED)
PARKED_BACKWARDS = seen(SagaStatus.PARKED, "CANCELLED", MACHINERY, parked=PARKED, turn=TURN)
PARKED_UNDO = seen(SagaStatus.PARKED, "ERROR", UNDO_FAILED, turn=TURN, retry=2)
PARKED_ODD = seen(SagaStatus.PARKED, "ERROR", MACHINERY)

ALL = {name: value for name, value in globals().items() if isinstance(value, Seen)}


def verdict(decision: Act | Refusal) -> str:
    """How it is carried out, or what is said."""
    return decision.way.value if isinstance(decision, Act) else decision.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STARTED", "forestall"),
        ("PENDING", "mark"),
        ("RECOVERING", "mark"),
        ("STOPPED", "mark"),
        ("ASKED_ALREADY", "mark"),
        ("TERMINATING", "is being terminated"),
        ("COMPENSATING", "is being undone already"),
        ("REAPED", "is being undone already"),
        ("COMPLETED", "Too late to cancel. Saga 's' (fulfil) has completed."),
        ("FAILED", "Too late to cancel. it failed"),
        ("CANCELLED", "Too late to cancel. it was cancelled"),
        ("ENDED", "Too late to cancel. stopped"),
        ("PARKED_FORWARDS", "resume"),
        ("PARKED_DEAD", "resume"),
        ("PARKED_BACKWARDS", "`retry` it, or undo by hand and `resolve`"),
        ("PARKED_UNDO", "`retry` it, or undo by hand and `resolve`"),
        ("PARKED_ODD", "`retry` it, or undo by hand and `resolve`"),
    ],
)
def test_a_cancel(name: str, expected: str) -> None:
    """A saga is asked to undo itself wherever that can be done, and otherwise says why not."""
    decision = requests.cancel(ALL[name], ASKED)
    assert expected in verdict(decision)
    if isinstance(decision, Act):
        assert decision.marks[REQUEST] is True
        first = ALL[name].marks.stop is None
        assert (decision.marks.get(STOP) == ASKED.as_json()) is first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STARTED", "halt"),
        ("PENDING", "halt"),
        ("STOPPED", "halt"),
        ("TERMINATING", "halt"),
        ("COMPENSATING", "halt"),
        ("REAPED", "halt"),
        ("COMPLETED", "Too late to terminate. Saga 's' (fulfil) has completed."),
        ("FAILED", "Too late to terminate. it failed"),
        ("ENDED", "Too late to terminate. stopped"),
        ("PARKED_FORWARDS", "halt"),
        ("PARKED_DEAD", "halt"),
        ("PARKED_BACKWARDS", "halt"),
        ("PARKED_UNDO", "mark"),
        ("PARKED_ODD", "mark"),
    ],
)
def test_a_terminate(name: str, expected: str) -> None:
    """Whatever has not ended can be stopped where it is; what DBOS has ended needs a mark only."""
    decision = requests.terminate(ALL[name], "mess", "ann", NOW)
    assert expected in verdict(decision)
    if isinstance(decision, Act):
        stop = Stop(Why.CANCEL, "mess", "ann", NOW)
        assert decision.marks == {TERMINATED: stop.as_json(), REQUEST: True}


@pytest.mark.parametrize(
    ("name", "way", "marks"),
    [
        ("PARKED_FORWARDS", Way.RESUME, {PARKED_MS: 6_000}),
        ("PARKED_DEAD", Way.RESUME, {PARKED_MS: 6_000}),
        ("PARKED_BACKWARDS", Way.RESUME, {PARKED_MS: 6_000}),
        ("PARKED_UNDO", Way.REWIND, {PARKED_MS: 1, RETRY: 3}),
        ("PARKED_ODD", Way.REWIND, {PARKED_MS: 1, RETRY: 1}),
    ],
)
def test_a_retry(name: str, way: Way, marks: dict[str, Any]) -> None:
    """A saga that DBOS cancelled keeps its messages; only one that has ended is rewound."""
    decision = requests.retry(ALL[name], NOW)
    assert isinstance(decision, Act)
    assert (decision.way, decision.marks) == (way, {**marks, STRUGGLING: None})


def test_a_retry_of_what_killed_its_process() -> None:
    """The saga stays stopped, but the step that was given up may be run once more."""
    stop = Stop(Why.DEAD_LETTER, "died again and again", None, NOW)
    again = seen(SagaStatus.PARKED, "CANCELLED", MACHINERY, parked=PARKED, stop=stop)
    marks = verdict_marks(requests.retry(again, NOW))
    assert Marks.parse(marks).stop == replace(stop, why=Why.DBOS_CANCEL)


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith("PARKED")])
def test_only_a_parked_saga_is_retried(name: str) -> None:
    """Where nothing is in the way there is nothing to retry, and the saga's state is told."""
    decision = requests.retry(ALL[name], NOW)
    assert f"is {ALL[name].status}, not PARKED" in verdict(decision)


def test_the_time_parked_adds_up() -> None:
    """Each time a saga was parked counts, whatever the clocks say, and never goes backwards."""
    again = seen(SagaStatus.PARKED, "CANCELLED", MACHINERY, parked=PARKED, parked_ms=500)
    assert verdict_marks(requests.retry(again, NOW))[PARKED_MS] == 6_500
    assert verdict_marks(requests.retry(again, 1_000))[PARKED_MS] == 500


def verdict_marks(decision: Act | Refusal) -> Any:
    assert isinstance(decision, Act)
    return decision.marks


STEPS = [
    StepRecord(1, "reserve", StepStatus.COMPENSATION_FAILED),
    StepRecord(2, "charge", StepStatus.COMPENSATED),
    StepRecord(3, "pack", StepStatus.RESOLVED),
]


@pytest.mark.parametrize(
    ("name", "step_id", "expected"),
    [
        ("PARKED_UNDO", 1, "rewind"),
        ("PARKED_UNDO", 9, "rewind"),
        ("PARKED_BACKWARDS", 1, "resume"),
        ("PARKED_FORWARDS", 1, "resume"),
        ("COMPENSATING", 1, "mark"),
        ("REAPED", 1, "mark"),
        ("PARKED_UNDO", 2, "step 2 'charge' is compensated already"),
        ("PARKED_UNDO", 3, "step 3 'pack' is resolved already"),
        ("PENDING", 1, "PARKED or COMPENSATING"),
        ("COMPLETED", 1, "PARKED or COMPENSATING"),
        ("ENDED", 1, "PARKED or COMPENSATING"),
        ("TERMINATING", 1, "is being terminated"),
    ],
)
def test_a_resolve(name: str, step_id: int, expected: str) -> None:
    """A step is declared undone where its saga is to go on without its undo, and only there."""
    decision = requests.resolve(ALL[name], STEPS, step_id, "by phone", "ann", NOW)
    assert expected in verdict(decision)
    if isinstance(decision, Act):
        assert Marks.parse(decision.marks).resolved == {step_id: Resolution("by phone", "ann")}
        assert decision.marks[REQUEST] is True
        assert (RETRY in decision.marks) is (expected == "rewind")


def test_a_step_that_is_none_is_not_resolved() -> None:
    """A wrong ID is an error that names the right ones, those without a row included."""
    with pytest.raises(SagaUsageError, match="1:reserve, 2:charge, 3:pack, 9:by hand"):
        requests.resolve(PARKED_UNDO, STEPS, 4, "x", None, NOW)
    with pytest.raises(SagaUsageError, match="none yet"):
        requests.resolve(COMPENSATING, [], 4, "x", None, NOW)


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"dbos_status": "CANCELLED", "ran": False}, {NEVER_RAN: True}),
        ({"dbos_status": "CANCELLED", "ran": True}, None),
        ({"dbos_status": "ENQUEUED", "ran": False}, None),
        ({"dbos_status": "PENDING", "ran": True}, None),
        ({"dbos_status": "CANCELLED", "ran": False, "marks": Marks(terminated=ASKED)}, None),
    ],
)
def test_a_saga_that_never_ran(changes: dict[str, Any], mark: Any) -> None:
    """Only a saga that DBOS cancelled before any worker took it counts as never run."""
    now = Seen(**{"saga_id": "s", "name": "n", "status": SagaStatus.PENDING, **changes})
    assert requests.forestalled(now) == mark


MARK = Act(Way.MARK, {}, "asked")
HALT = Act(Way.HALT, {}, "terminated")
FORESTALL = Act(Way.FORESTALL, {}, "before it began")
RESUME = Act(Way.RESUME, {}, "goes on")


@pytest.mark.parametrize(
    ("act", "before", "after", "accepted", "words"),
    [
        (MARK, "PENDING", "PENDING", True, "asked"),
        (MARK, "PENDING", "COMPENSATING", True, "asked"),
        (MARK, "PENDING", "CANCELLED", True, "it was cancelled"),
        (MARK, "PENDING", "COMPLETED", False, "too late. Saga 's' (fulfil) has completed"),
        (MARK, "PENDING", "FAILED", False, "too late. it failed"),
        (MARK, "PENDING", "PARKED_FORWARDS", True, "parked meanwhile: code changed; `retry` it"),
        (MARK, "COMPENSATING", "FAILED", True, "it failed"),
        (MARK, "COMPENSATING", "PARKED_UNDO", True, "`retry` it"),
        (MARK, "PARKED_UNDO", "ENDED", True, "asked"),
        (HALT, "PENDING", "ENDED", True, "terminated"),
        (HALT, "PENDING", "COMPLETED", False, "Too late to terminate"),
        (HALT, "COMPENSATING", "FAILED", False, "Too late to terminate. it failed"),
        (FORESTALL, "STARTED", "CANCELLED", True, "it was cancelled"),
        (FORESTALL, "STARTED", "STOPPED", True, "had just begun"),
        (FORESTALL, "STARTED", "COMPLETED", False, "has completed"),
        (RESUME, "PARKED_FORWARDS", "RECOVERING", True, "goes on"),
        (RESUME, "PARKED_FORWARDS", "PARKED_FORWARDS", True, "goes on"),
        (RESUME, "PARKED_FORWARDS", "COMPLETED", True, "goes on"),
    ],
)
def test_what_came_of_a_request(
    act: Act, before: str, after: str, accepted: bool, words: str
) -> None:
    """What is said of a request is what is seen of the saga after it, not what was hoped for."""
    result = requests.report(act, ALL[before], ALL[after])
    assert (result.accepted, result.status) == (accepted, ALL[after].status)
    assert words in result.message
    assert bool(result) is accepted


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("CANCELLED", True), ("FAILED", False), ("COMPLETED", False), ("PARKED_UNDO", False)],
)
def test_the_end_of_a_cancel(name: str, accepted: bool) -> None:
    """Who waits for the end is told whether the saga was cancelled, and how it ended if not."""
    result = requests.end_of_cancel(ALL[name])
    assert result == RequestResult(accepted, ALL[name].status, ALL[name].ended)
    assert requests.end_of_cancel(PENDING) is None
    assert requests.end_of_cancel(REAPED) is None


@pytest.mark.parametrize(
    ("saga_id", "by", "reason"),
    [
        ("", None, None),
        (" ", None, None),
        (7, None, None),
        (None, None, None),
        ("a\x00", None, None),
        ("s", "", None),
        ("s", 7, None),
        ("s", "a\x00", None),
        ("s", "\ud800", None),
        ("s", None, 7),
        ("s", None, "a\x00"),
    ],
)
def test_bad_input(saga_id: Any, by: Any, reason: Any) -> None:
    """What cannot be written down, or names nothing, is refused before anything is done."""
    with pytest.raises(SagaUsageError):
        requests.check_request(saga_id, by, reason)


def test_good_input() -> None:
    """A reason may be left out or empty; any text that a database can hold will do."""
    requests.check_request("order-7", None, None)
    requests.check_request("œ", "ann", "")


@pytest.mark.parametrize("topic", ["", " ", None, 7, "a\x00", "sagas.", "sagas.wait"])
def test_topics(topic: Any) -> None:
    """A topic is text, and none of the library's own."""
    with pytest.raises(SagaUsageError, match="topic"):
        requests.check_topic(topic)
    requests.check_topic("sagas")


def test_a_long_reason_is_kept_short() -> None:
    """A reason of any length can be asked with; its middle is left out."""
    assert len(requests.cancel_request("x" * 10**6, None, NOW).reason) < 10**4
