"""Requests to sagas: what is asked of DBOS, in which order, and what a race does to it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sagas import (
    CompensationFailedError,
    Failure,
    SagaNotFoundError,
    SagaStatus,
    SagaUsageError,
    _dbos,
    _verbs,
)
from sagas._marks import NEVER_RAN, PARKED, RETRY, STOP, TAKEOVERS, TERMINATED, Parked, Turn

UNDO_FAILED = CompensationFailedError("parked", saga_id="s", reason="not undone: 1:a")
TURN = Turn(3, Failure(None, None, "E", "m")).attributes()


class FakeGate:
    """One workflow's row, as DBOS treats it; and a stranger who acts between two calls."""

    def __init__(self, status: str = "PENDING", **changes: Any) -> None:
        fields: dict[str, Any] = {
            "workflow_id": "s",
            "name": "fulfil",
            "status": status,
            "attributes": {},
            "error": None,
            "recovery_attempts": 0 if status in ("ENQUEUED", "DELAYED") else 1,
            "queue_name": None,
            "completed_at": 1_000,
            "application_name": "shop",
        }
        self.now = SimpleNamespace(**{**fields, **changes})
        self.recorded: list[Any] = []
        self.calls: list[str] = []
        self.between: dict[str, Callable[[], None]] = {}

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.between.pop(f"after {name}", lambda: None)()

    def row(self, saga_id: str) -> Any:
        if saga_id != self.now.workflow_id:
            return None
        return SimpleNamespace(**{**vars(self.now), "attributes": dict(self.now.attributes)})

    def steps(self, saga_id: str) -> list[Any]:
        return self.recorded

    def mark(self, saga_id: str, marks: Any) -> None:
        self.now.attributes |= marks
        ours = [k.removeprefix("sagas.") for k in marks if not k.startswith("sagas.audit")]
        audit = [k for k in marks if k.startswith("sagas.audit")]
        self._called(f"mark {' '.join(ours)}{' +audit' if audit else ''}")

    def dbos_cancel(self, saga_id: str) -> None:
        if self.now.status not in ("SUCCESS", "ERROR"):
            self.now.status = "CANCELLED"
        self._called("cancel")

    def resume(self, saga_id: str, queue: str | None = None) -> None:
        if self.now.status not in ("SUCCESS", "ERROR"):
            self.now.status, self.now.recovery_attempts = "ENQUEUED", 0
            self.now.queue_name = "_dbos_internal_queue"
        self._called("resume")

    def rewind(self, saga_id: str, start_step: int, application_version: str | None) -> None:
        if self.now.status in ("ENQUEUED", "PENDING"):
            raise _dbos.DBOSError("only a workflow in a terminal state can be rewound")
        self.now.status, self.now.error = "ENQUEUED", None
        self._called(f"rewind {start_step} {application_version}")

    def send(self, saga_id: str, topic: str, message: Any, idempotency_key: str | None) -> None:
        self._called(f"send {topic} {message!r} {idempotency_key}")

    def latest_version(self, application: str | None) -> str | None:
        return f"{application}-2"

    def dequeue(self) -> None:
        """A worker takes it."""
        self.now.status, self.now.recovery_attempts = "PENDING", 1


def test_a_saga_that_waits_is_cancelled_for_good() -> None:
    """It is marked before DBOS cancels it, so that a crash in between loses nothing."""
    gate = FakeGate("ENQUEUED", queue_name="orders")
    result = _verbs.cancel(gate, "s", "no stock", by="ann")
    assert gate.calls == ["mark stop request +audit", "cancel", "mark never_ran"]
    assert (result.accepted, result.status) == (True, SagaStatus.FAILED)
    assert "before it began" in result.message
    assert _verbs.end_of_cancel(gate, "s") == result


@pytest.mark.parametrize("moment", ["mark stop request +audit", "cancel"])
def test_a_worker_that_is_faster_than_a_cancel(moment: str) -> None:
    """A saga that a worker took meanwhile is not said to have never run: it is to be undone."""
    gate = FakeGate("ENQUEUED", queue_name="orders")
    gate.between[f"after {moment}"] = gate.dequeue
    result = _verbs.cancel(gate, "s")
    assert NEVER_RAN not in gate.now.attributes
    assert STOP in gate.now.attributes
    assert (result.accepted, result.status) == (True, SagaStatus.PENDING)
    assert "had just begun" in result.message


def test_a_saga_that_was_resumed_meanwhile_did_run() -> None:
    """A mark that came too late is taken back: no saga reads FAILED that is half done."""
    gate = FakeGate("ENQUEUED", queue_name="orders")
    gate.between["after mark never_ran"] = lambda: (gate.resume("s"), gate.dequeue())[-1]
    result = _verbs.cancel(gate, "s")
    assert gate.now.attributes[NEVER_RAN] is None
    assert result.status is SagaStatus.PENDING


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": {TAKEOVERS: 1}},
        {"queue_name": "_dbos_internal_queue"},
        {"recovery_attempts": 1},
        {"recorded": [{"function_id": 1}]},
        {"attributes": Parked("x", 5, 1).attributes()},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_saga_that_waits_to_go_on_is_asked(changes: dict[str, Any]) -> None:
    """A saga that has begun, however little there is to see of it, is never just thrown away."""
    recorded = changes.pop("recorded", [])
    gate = FakeGate("ENQUEUED", **{"queue_name": "orders", **changes})
    gate.recorded = recorded
    assert _verbs.cancel(gate, "s")
    assert gate.calls == ["mark stop request +audit"]


def test_terminate_marks_first() -> None:
    """A DBOS cancel of ours is never without its mark, or the saga would be undone."""
    gate = FakeGate("PENDING")
    assert _verbs.terminate(gate, "s", reason="mess").status is SagaStatus.TERMINATED
    assert gate.calls == ["mark terminated request +audit", "cancel"]
    gate = FakeGate("ERROR", error=UNDO_FAILED, attributes={**TURN})
    assert _verbs.terminate(gate, "s").status is SagaStatus.TERMINATED
    assert gate.calls == ["mark terminated request +audit"]


def test_a_saga_that_completes_is_not_terminated() -> None:
    """Who terminates a saga that completes at that moment is told that it has."""
    gate = FakeGate("PENDING")

    def complete() -> None:
        gate.now.status = "SUCCESS"

    gate.between["after mark terminated request +audit"] = complete
    result = _verbs.terminate(gate, "s")
    assert (result.accepted, result.status) == (False, SagaStatus.COMPLETED)


def test_retry_of_a_parked_saga() -> None:
    """Its parked mark goes after it is resumed: else it looks stopped, and would be undone."""
    gate = FakeGate("CANCELLED", attributes=Parked("x", 5).attributes())
    result = _verbs.retry(gate, "s", by="ann")
    assert gate.calls == ["mark parked_ms struggling +audit", "resume", "mark parked"]
    assert gate.now.attributes[PARKED] is None
    assert (result.accepted, result.status) == (True, SagaStatus.PENDING)


def test_a_saga_that_parks_anew_stays_parked() -> None:
    """The mark of a saga that a worker has parked again meanwhile is not wiped off."""
    gate = FakeGate("CANCELLED", attributes=Parked("x", 5).attributes())

    def park_again() -> None:
        gate.dequeue()
        gate.now.attributes |= Parked("again", 9).attributes()
        gate.now.status = "CANCELLED"

    gate.between["after resume"] = park_again
    assert _verbs.retry(gate, "s").status is SagaStatus.PARKED
    assert gate.now.attributes[PARKED]["reason"] == "again"


def test_retry_of_a_saga_with_a_failed_undo() -> None:
    """It is run again behind its last step, by the latest version of its application."""
    gate = FakeGate("ERROR", error=UNDO_FAILED, attributes={**TURN})
    gate.recorded = [{"function_id": 1}, {"function_id": 7}]
    assert _verbs.retry(gate, "s").status is SagaStatus.COMPENSATING
    assert gate.calls == ["mark parked_ms struggling retry +audit", "rewind 8 shop-2"]
    assert gate.now.attributes[RETRY] == 1


@pytest.mark.parametrize("dbos_status", ["ERROR", "CANCELLED"])
def test_of_two_retries_one_is_refused(dbos_status: str) -> None:
    """A saga is not run twice at a time by two who retry it."""
    attributes = {**TURN} if dbos_status == "ERROR" else Parked("x", 5).attributes()
    gate = FakeGate(dbos_status, error=UNDO_FAILED, attributes=attributes)
    looks = 0

    def row(saga_id: str) -> Any:
        nonlocal looks
        looks += 1
        found = FakeGate.row(gate, saga_id)
        if looks == 1:
            gate.now.status, gate.now.error = "ENQUEUED", None  # the other is faster
        return found

    gate.row = row  # type: ignore[method-assign]
    result = _verbs.retry(gate, "s")
    assert not result
    assert "under way already" in result.message
    assert "resume" not in gate.calls


def test_an_error_of_the_database_is_not_another_request() -> None:
    """A rewind that fails otherwise is not passed off as one that somebody else has begun."""
    gate = FakeGate("ERROR", error=UNDO_FAILED, attributes={**TURN})

    def rewind(*_: Any) -> None:
        raise _dbos.DBOSError("no such luck")

    gate.rewind = rewind  # type: ignore[method-assign]
    with pytest.raises(_dbos.DBOSError, match="no such luck"):
        _verbs.retry(gate, "s")


def test_cancel_of_a_parked_saga() -> None:
    """A saga parked on its way forwards is resumed with the request to undo itself."""
    gate = FakeGate("CANCELLED", attributes=Parked("x", 5).attributes())
    assert _verbs.cancel(gate, "s").status is SagaStatus.PENDING
    assert gate.calls == ["mark stop request +audit", "resume", "mark parked"]


def test_resolve_of_a_step_of_a_parked_saga() -> None:
    """The step's mark and the retry are one: written together, then rewound."""
    gate = FakeGate("ERROR", error=UNDO_FAILED, attributes={**TURN})
    row = {
        "function_id": 1,
        "function_name": "a",
        "output": None,
        "error": None,
        "started_at_epoch_ms": 1,
        "completed_at_epoch_ms": 2,
    }
    gate.recorded = [
        row,
        {**row, "function_id": 5, "function_name": "undo:1:a", "error": OSError()},
    ]
    result = _verbs.resolve(gate, "s", 1, note="by phone", by="ann")
    assert gate.calls == [
        "mark parked_ms struggling retry resolved.1 request +audit",
        "rewind 6 shop-2",
    ]
    assert (result.accepted, result.status) == (True, SagaStatus.COMPENSATING)
    for step_id, note in ((True, "x"), ("1", "x"), (1, " "), (1, None), (9, "x")):
        with pytest.raises(SagaUsageError):
            _verbs.resolve(gate, "s", step_id, note=note)  # type: ignore[arg-type]


def test_a_refusal_writes_nothing() -> None:
    """What is not done leaves no trace on the saga."""
    gate = FakeGate("SUCCESS")
    for result in (
        _verbs.cancel(gate, "s"),
        _verbs.terminate(gate, "s"),
        _verbs.retry(gate, "s"),
    ):
        assert (result.accepted, result.status) == (False, SagaStatus.COMPLETED)
    with pytest.raises(SagaNotFoundError, match="nowhere"):
        _verbs.cancel(gate, "nowhere")
    assert gate.calls == []


@pytest.mark.parametrize(
    "gate",
    [
        FakeGate("SUCCESS"),
        FakeGate("ERROR", error=UNDO_FAILED, attributes={**TURN}),
        FakeGate("CANCELLED", attributes={TERMINATED: {"why": "cancel"}}),
    ],
    ids=["completed", "undone only", "terminated"],
)
def test_nothing_is_sent_to_who_does_not_read(gate: FakeGate) -> None:
    """A message that would never be read, or would be dropped, is not taken."""
    with pytest.raises(SagaUsageError, match="has ended"):
        _verbs.send(gate, "s", "topic", 1)
    assert gate.calls == []


def test_messages() -> None:
    """None is wrapped, as DBOS returns None for no message; what cannot be stored is refused."""
    gate = FakeGate("CANCELLED", attributes=Parked("x", 5).attributes())
    _verbs.send(gate, "s", "topic", None)
    _verbs.send(gate, "s", "topic", 0, idempotency_key="k")
    assert gate.calls == ["send topic {'__sagas__': 'none'} None", "send topic 0 k"]
    with pytest.raises(SagaUsageError, match="type function cannot be stored"):
        _verbs.send(gate, "s", "topic", lambda: None)
    with pytest.raises(SagaUsageError, match="__sagas__"):
        _verbs.send(gate, "s", "topic", {"__sagas__": "sentinel"})
    with pytest.raises(SagaUsageError, match="idempotency_key"):
        _verbs.send(gate, "s", "topic", 1, idempotency_key="")
