"""What a saga's state is called."""

from __future__ import annotations

from typing import Any

import pytest
from dbos import WorkflowStatusString

from sagas import (
    CompensationFailedError,
    Failure,
    SagaCancelledError,
    SagaFailedError,
    SagaParkedError,
    SagaStatus,
    SagaTerminatedError,
    SagaTimeoutError,
    StepStatus,
)
from sagas._listing import _DBOS_STATUS
from sagas._marks import Marks, Parked, Turn
from sagas._status import parked_reason, saga_status
from sagas._stop import Stop, Why

TURN = Turn(3, Failure(None, None, "E", "m"))
TURNED = Marks(turn=TURN)
PARKED = Marks(parked=Parked("x"))
ASKED = Stop(Why.CANCEL, "why")
STOPPED = Marks(stop=ASKED)
ENDED = Marks(terminated=ASKED)
DEAD = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
FACTS: dict[str, Any] = {"saga_id": "s"}
FAILED = SagaFailedError("m", **FACTS)
UNDO_FAILED = CompensationFailedError("m", **FACTS)

CASES = [
    ("ENQUEUED", Marks(), None, SagaStatus.STARTED),
    ("DELAYED", Marks(), None, SagaStatus.STARTED),
    ("PENDING", Marks(), None, SagaStatus.PENDING),
    ("ENQUEUED", TURNED, None, SagaStatus.COMPENSATING),
    ("DELAYED", TURNED, None, SagaStatus.COMPENSATING),
    ("PENDING", TURNED, None, SagaStatus.COMPENSATING),
    ("PENDING", PARKED, None, SagaStatus.PENDING),
    ("PENDING", STOPPED, None, SagaStatus.PENDING),
    ("PENDING", ENDED, None, SagaStatus.PENDING),
    ("ENQUEUED", STOPPED, None, SagaStatus.STARTED),
    ("SUCCESS", Marks(), None, SagaStatus.COMPLETED),
    ("SUCCESS", TURNED, None, SagaStatus.COMPLETED),
    ("ERROR", TURNED, SagaFailedError("m", **FACTS), SagaStatus.FAILED),
    ("ERROR", Marks(), SagaFailedError("m", **FACTS), SagaStatus.FAILED),
    ("ERROR", TURNED, SagaCancelledError("m", **FACTS), SagaStatus.FAILED),
    ("ERROR", TURNED, SagaTimeoutError("m", **FACTS), SagaStatus.FAILED),
    ("ERROR", TURNED, SagaParkedError("m", **FACTS), SagaStatus.PARKED),
    ("ERROR", TURNED, CompensationFailedError("m", **FACTS), SagaStatus.PARKED),
    ("ERROR", Marks(), SagaTerminatedError("m", **FACTS), SagaStatus.TERMINATED),
    ("ERROR", Marks(), ValueError("arguments"), SagaStatus.PARKED),
    ("ERROR", TURNED, "an error that no longer loads", SagaStatus.PARKED),
    ("ERROR", Marks(), None, SagaStatus.PARKED),
    ("ERROR", Marks(turn=TURN, terminated=ASKED), FAILED, SagaStatus.FAILED),
    ("ERROR", Marks(turn=TURN, terminated=ASKED), UNDO_FAILED, SagaStatus.TERMINATED),
    ("ERROR", ENDED, None, SagaStatus.TERMINATED),
    ("SUCCESS", ENDED, None, SagaStatus.COMPLETED),
    ("SUCCESS", STOPPED, None, SagaStatus.COMPLETED),
    *[
        (stopped, marks, None, status)
        for stopped in ("CANCELLED", DEAD)
        for marks, status in [
            (PARKED, SagaStatus.PARKED),
            (Marks(turn=TURN, parked=Parked("x")), SagaStatus.PARKED),
            (Marks(stop=ASKED, parked=Parked("x")), SagaStatus.PARKED),
            (TURNED, SagaStatus.COMPENSATING),
            (STOPPED, SagaStatus.PENDING),
            (Marks(), SagaStatus.PENDING),
            (Marks(stop=ASKED, never_ran=True), SagaStatus.FAILED),
            (ENDED, SagaStatus.TERMINATED),
            (Marks(turn=TURN, terminated=ASKED), SagaStatus.TERMINATED),
            (Marks(parked=Parked("x"), terminated=ASKED), SagaStatus.TERMINATED),
        ]
    ],
]


@pytest.mark.parametrize(("dbos_status", "marks", "error", "status"), CASES)
def test_the_status_of_a_saga(
    dbos_status: str, marks: Marks, error: Any, status: SagaStatus
) -> None:
    """DBOS's status, the marks and the outcome together give the saga's, as the contract says."""
    assert saga_status(dbos_status, marks, error) is status


@pytest.mark.parametrize("dbos_status", ["ENQUEUED", "DELAYED", "PENDING"])
def test_a_saga_that_is_to_be_resumed_is_running(dbos_status: str) -> None:
    """DBOS enqueues what it recovers: such a saga is not taken for one that never began."""
    assert saga_status(dbos_status, Marks(), None, has_begun=True) is SagaStatus.PENDING
    assert saga_status(dbos_status, TURNED, None, has_begun=True) is SagaStatus.COMPENSATING
    assert dbos_status in _DBOS_STATUS[SagaStatus.PENDING]
    assert dbos_status in _DBOS_STATUS[SagaStatus.COMPENSATING]


def test_every_status_of_dbos_is_known() -> None:
    """When a DBOS release gains a status, somebody has to decide what it means for a saga."""
    of_dbos = {status.value for status in WorkflowStatusString}
    assert of_dbos == {case[0] for case in CASES}


def test_every_status_of_a_saga_occurs() -> None:
    """There is no status that no saga can have."""
    assert {case[3] for case in CASES} == set(SagaStatus)


@pytest.mark.parametrize(("dbos_status", "marks", "error", "status"), CASES)
def test_a_list_by_status_looks_where_such_sagas_are(
    dbos_status: str, marks: Marks, error: Any, status: SagaStatus
) -> None:
    """`SagaClient.list(status=...)` asks DBOS for every state that such a saga can be in."""
    assert dbos_status in _DBOS_STATUS[status]


def test_final_states() -> None:
    """A saga that is done, parked or stopped stays so by itself; the others go on."""
    assert {s for s in SagaStatus if not s.is_final} == {
        SagaStatus.STARTED,
        SagaStatus.PENDING,
        SagaStatus.COMPENSATING,
    }


def test_statuses_are_text() -> None:
    """A status can be compared with its name, printed and written as JSON."""
    assert SagaStatus.PARKED == "PARKED"
    assert str(StepStatus.COMPENSATION_FAILED) == "compensation_failed"


@pytest.mark.parametrize(
    ("marks", "error", "words"),
    [
        (Marks(), SagaParkedError("m", reason="the undo", **FACTS), "the undo"),
        (Marks(parked=Parked("code changed")), None, "code changed"),
        (Marks(), ValueError("odd"), "odd"),
        (Marks(), "an error that no longer loads", "no longer loads"),
    ],
)
def test_the_reason_of_a_parked_saga(marks: Marks, error: Any, words: str) -> None:
    """Every saga that is parked says why."""
    assert words in parked_reason(marks, error)
