"""Resolve: a person's word that a step is undone, and the saga goes on with the rest."""

from __future__ import annotations

from typing import Any

import pytest

from sagas import (
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaStatus,
    SagaUsageError,
    StepStatus,
)
from steps import NonRetryableError, OutcomeUnknownError

from .stage import STAGE, anew, ended, pauses, reached, started
from .support import until

pytestmark = pytest.mark.slow  # DBOS takes up to a second to take a saga up again


def failed(handle: SagaHandle[Any]) -> Any:
    """Wait for the saga's end, which must be that all is undone; its state."""
    with pytest.raises(SagaFailedError) as caught:
        handle.result(timeout=15)
    state = ended(handle)
    assert state.status is SagaStatus.FAILED
    assert not state.needs_attention
    assert str(caught.value) == str(state.error)
    return state


def test_an_undo_that_failed(asker: SagaClient, play: Any) -> None:
    """It is not tried again, the older undos follow, and the note stays with the step."""
    STAGE.break_("undo b", lambda: NonRetryableError("locked"))
    handle = started(play, "a; b; c; fail")
    assert ended(handle).status is SagaStatus.PARKED
    result = asker.resolve(handle.saga_id, 2, note="refunded by hand", by="ann")
    assert result.accepted
    assert result.status in (SagaStatus.COMPENSATING, SagaStatus.FAILED)
    state = failed(handle)
    assert list(STAGE)[3:] == ["undo c", "undo b", "undo a"]
    first, second, third, *_ = state.steps
    assert (second.status, second.note) == (StepStatus.RESOLVED, "refunded by hand")
    assert second.resolved_by == "ann"
    assert second.undo_error is not None  # why it had to be resolved is not forgotten
    assert first.status is third.status is StepStatus.COMPENSATED
    assert [(e.verb, e.by, e.reason) for e in state.audit] == [
        ("resolve", "ann", "refunded by hand")
    ]
    assert asker.history(handle.saga_id) == state.steps


def test_one_of_several_that_failed(asker: SagaClient, play_on: Any) -> None:
    """The others that failed are tried again; the saga is parked until none is left."""
    STAGE.break_("undo a", lambda: NonRetryableError("locked"))
    STAGE.break_("undo b", lambda: NonRetryableError("locked"))
    handle = started(play_on, "a; b; c; fail")
    assert ended(handle).status is SagaStatus.PARKED
    assert asker.resolve(handle.saga_id, 1, note="by hand")
    until(lambda: STAGE.count("undo b") == 2)
    state = ended(handle)
    assert state.status is SagaStatus.PARKED
    assert [s.status for s in state.steps][:3] == [
        StepStatus.RESOLVED,
        StepStatus.COMPENSATION_FAILED,
        StepStatus.COMPENSATED,
    ]
    assert asker.resolve(handle.saga_id, 2, note="by hand, too")
    failed(handle)
    assert [STAGE.count(f"undo {n}") for n in "abc"] == [1, 2, 1]


@pytest.mark.parametrize("script", ["a; slowly b; fail", "a; b; fail"])
def test_an_undo_that_keeps_failing(asker: SagaClient, play: Any, script: str) -> None:
    """An undo in flight ends at once, in its delay too, and the older ones follow."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    handle = started(play, script)
    reached("undo b", 1 if "slowly" in script else 3)
    until(lambda: pauses(handle.saga_id))
    result = asker.resolve(handle.saga_id, 2, note="by hand", by="ann")
    assert (result.accepted, result.status) in (
        (True, SagaStatus.COMPENSATING),
        (True, SagaStatus.FAILED),
    )
    state = failed(handle)
    assert (state.steps[1].status, state.steps[1].note) == (StepStatus.RESOLVED, "by hand")
    assert state.steps[0].status is StepStatus.COMPENSATED
    assert STAGE[-1] == "undo a"
    assert [e.verb for e in state.audit] == ["resolve"]


def test_an_undo_that_has_not_begun(asker: SagaClient, play: Any) -> None:
    """A step that is resolved ahead of its undo is passed over when its turn comes."""
    STAGE.hold("undo c")
    handle = started(play, "a; b; c; fail")
    reached("undo c")
    assert asker.resolve(handle.saga_id, 2, note="by hand")
    until(lambda: handle.state().steps[1].status is StepStatus.RESOLVED)
    until(lambda: is_told(handle.saga_id))
    STAGE.let_go("undo c")
    failed(handle)
    assert list(STAGE)[3:] == ["undo c", "undo a"]


def is_told(saga_id: str) -> bool:
    """Whether the execution here knows of it."""
    from sagas import _running

    run: Any = _running.of(saga_id)
    return bool(run.resolved)


def test_a_step_that_did_not_know(asker: SagaClient, play: Any) -> None:
    """A step whose outcome nobody knows counts as failed, and the saga turns round."""
    STAGE.break_("do b", lambda: OutcomeUnknownError("no answer"))
    handle = started(play, "a; b; c")
    state = ended(handle)
    assert state.status is SagaStatus.PARKED
    assert state.steps[1].status is StepStatus.UNKNOWN
    assert asker.resolve(handle.saga_id, 2, note="it is not there", by="ann")
    state = failed(handle)
    assert list(STAGE) == ["do a", "do b", "undo a"]
    assert (state.steps[1].status, state.steps[1].note) == (
        StepStatus.RESOLVED,
        "it is not there",
    )
    assert state.steps[1].name == state.steps[0].name
    assert state.failure is not None
    assert state.failure.step_id == 2
    assert "it is not there" in state.failure.message


def test_a_crash_after_it(asker: SagaClient, play: Any) -> None:
    """A resolution outlives the process that it was told to."""
    STAGE.break_("undo b", lambda: NonRetryableError("locked"))
    handle = anew(started(play, "a; b; c; fail"))
    assert ended(handle).status is SagaStatus.PARKED
    STAGE.crash_at("undo a")
    assert asker.resolve(handle.saga_id, 2, note="by hand")
    state = failed(handle)
    assert list(STAGE)[3:] == ["undo c", "undo b", "undo a", "undo a"]
    assert state.steps[1].status is StepStatus.RESOLVED


def test_what_cannot_be_resolved(asker: SagaClient, play: Any) -> None:
    """A step that is none, or undone already, or of a saga that is not stuck, is refused."""
    STAGE.break_("undo b", lambda: NonRetryableError("locked"))
    handle = started(play, "a; b; c; fail")
    ended(handle)
    with pytest.raises(SagaUsageError, match=r"no step 9.*1:act.*2:act.*3:act"):
        asker.resolve(handle.saga_id, 9, note="x")
    with pytest.raises(SagaUsageError, match="whole number"):
        asker.resolve(handle.saga_id, "2", note="x")  # type: ignore[arg-type]
    undone = asker.resolve(handle.saga_id, 3, note="x")
    assert (undone.accepted, undone.status) == (False, SagaStatus.PARKED)
    assert "compensated already" in undone.message
    assert handle.state().audit == ()
    assert asker.resolve(handle.saga_id, 2, note="x")
    failed(handle)
    for step_id, why in ((2, "resolved already"), (1, "compensated already")):
        late = asker.resolve(handle.saga_id, step_id, note="y")
        assert (late.accepted, late.status) == (False, SagaStatus.FAILED)
        assert why in late.message
    STAGE.hold("do z")
    running = started(play, "a; z")
    reached("do z")
    early = asker.resolve(running.saga_id, 1, note="x")
    assert (early.accepted, early.status) == (False, SagaStatus.PENDING)
    assert "PARKED or COMPENSATING" in early.message
    STAGE.let_go("do z")
    assert running.result(timeout=15) == ["A", "Z"]


def test_a_step_of_a_saga_that_goes_forward(asker: SagaClient, play: Any) -> None:
    """A completed step is not declared undone while its saga means to complete."""
    STAGE.break_("do b", lambda: OutcomeUnknownError("no answer"))
    handle = started(play, "a; b")
    assert ended(handle).status is SagaStatus.PARKED
    result = asker.resolve(handle.saga_id, 1, note="by hand")
    assert (result.accepted, result.status) == (False, SagaStatus.PARKED)
    assert "cancel" in result.message
    STAGE.mend("do b")
    assert asker.retry(handle.saga_id)
    assert handle.result(timeout=15) == ["A", "B"]
