"""Retry: a parked saga goes on under its ID, and nothing is undone twice or lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sagas import (
    CompensationFailedError,
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaParkedError,
    SagaStatus,
    StepStatus,
)
from steps import NonRetryableError, OutcomeUnknownError

from .stage import STAGE, anew, ended, reached, started
from .support import names, until

pytestmark = pytest.mark.slow  # DBOS takes up to a second to take a saga up again


def locked() -> Exception:
    return NonRetryableError("locked")


def unanswered() -> Exception:
    return OutcomeUnknownError("no answer")


def parked(handle: SagaHandle[Any]) -> Any:
    """Wait until a saga is parked; its state."""
    state = ended(handle)
    assert state.status is SagaStatus.PARKED
    assert state.needs_attention
    with pytest.raises(SagaParkedError):
        handle.result()
    return state


def undos(handle: SagaHandle[Any]) -> list[str]:
    """The undos as DBOS has recorded them, by ID, without their steps' names."""
    found = [n.split(":") for n in names(handle.saga_id) if n.startswith("undo:")]
    return [f"{i}{name[name.find('#') :] if '#' in name else ''}" for _, i, name in found]


def test_an_undo_that_failed(asker: SagaClient, play: Any) -> None:
    """The undo that failed is run again, then the older ones; what is undone stays so."""
    STAGE.break_("undo b", locked)
    handle = started(play, "a; b; c; fail")
    state = parked(handle)
    assert state.reason is not None
    assert "2:" in state.reason
    STAGE.mend("undo b")
    STAGE.hold("undo b")
    result = asker.retry(handle.saga_id, by="ann", reason="unlocked")
    assert result.accepted
    assert result.status is SagaStatus.COMPENSATING
    reached("undo b", 2)
    state = handle.state()
    assert (state.status, state.reason) == (SagaStatus.COMPENSATING, None)
    assert [s.status for s in state.steps][:3] == [
        StepStatus.COMPLETED,
        StepStatus.COMPENSATING,
        StepStatus.COMPENSATED,
    ]
    STAGE.let_go("undo b")
    state = ended(handle)
    assert list(STAGE)[3:] == ["undo c", "undo b", "undo b", "undo a"]
    assert state.status is SagaStatus.FAILED
    assert type(state.error) is SagaFailedError
    assert [r.step_id for r in state.error.undone] == [3, 2, 1]
    assert state.failure is not None
    assert state.failure.message == "no"
    assert undos(handle) == ["3", "2", "2#1", "1"]
    assert [s.status for s in state.steps][:3] == [StepStatus.COMPENSATED] * 3
    assert all(s.undo_error is None for s in state.steps)
    assert [(e.verb, e.by, e.reason) for e in state.audit] == [("retry", "ann", "unlocked")]
    with pytest.raises(SagaFailedError) as caught:
        handle.result(timeout=15)
    assert str(caught.value) == str(state.error)
    late = asker.retry(handle.saga_id)
    assert (late.accepted, late.status) == (False, SagaStatus.FAILED)


def test_several_times(asker: SagaClient, play: Any) -> None:
    """Each retry that fails is told of; the undo that had succeeded is not run again."""
    STAGE.break_("undo b", locked)
    handle = started(play, "a; b; c; fail")
    parked(handle)
    for generation in (1, 2):
        assert asker.retry(handle.saga_id)
        until(lambda g=generation: undos(handle) == ["3", "2", *[f"2#{n + 1}" for n in range(g)]])
        state = parked(handle)
        assert state.steps[1].status is StepStatus.COMPENSATION_FAILED
        assert isinstance(state.error, CompensationFailedError)
        assert [n.step_id for n in state.error.not_undone] == [2, 1]
    STAGE.mend("undo b")
    assert asker.retry(handle.saga_id)
    until(lambda: handle.status() is SagaStatus.FAILED)
    assert undos(handle) == ["3", "2", "2#1", "2#2", "2#3", "1"]
    assert list(STAGE)[3:] == ["undo c", *["undo b"] * 4, "undo a"]
    assert len(handle.state().audit) == 3


def test_only_what_failed(asker: SagaClient, play_on: Any) -> None:
    """Where the unwinding went on, only the undos that failed are run again, none twice."""
    STAGE.break_("undo c", locked)
    STAGE.break_("undo a", locked)
    handle = started(play_on, "a; b; c; fail")
    state = parked(handle)
    assert [s.status for s in state.steps][:3] == [
        StepStatus.COMPENSATION_FAILED,
        StepStatus.COMPENSATED,
        StepStatus.COMPENSATION_FAILED,
    ]
    STAGE.mend("undo c")
    assert asker.retry(handle.saga_id)
    until(lambda: len(undos(handle)) == 5)
    state = parked(handle)
    assert isinstance(state.error, CompensationFailedError)
    assert [n.step_id for n in state.error.not_undone] == [1]
    STAGE.mend("undo a")
    assert asker.retry(handle.saga_id)
    until(lambda: handle.status() is SagaStatus.FAILED)
    assert undos(handle) == ["3", "2", "1", "3#1", "1#1", "1#2"]
    assert [STAGE.count(f"undo {n}") for n in "abc"] == [3, 1, 2]


def test_a_crash_in_the_middle(asker: SagaClient, play: Any) -> None:
    """A retry that its process does not outlive goes on; no recorded undo is run again."""
    STAGE.break_("undo c", locked)
    handle = started(play, "a; b; c; fail")
    parked(handle)
    STAGE.mend("undo c")
    STAGE.crash_at("undo c", "undo b", "undo a")
    assert asker.retry(handle.saga_id)
    until(lambda: handle.status() is SagaStatus.FAILED)
    assert STAGE.died == ["undo c", "undo b", "undo a"]
    assert list(STAGE)[3:] == ["undo c"] + [f"undo {n}" for n in "ccbbaa"]
    assert undos(handle) == ["3", "3#1", "2", "1"]
    assert ended(handle).status is SagaStatus.FAILED


@pytest.mark.parametrize("broken", ["undo b", "do b"])
def test_two_at_once(asker: SagaClient, play: Any, broken: str) -> None:
    """Of two retries at a time one is told that the other is under way; nothing runs twice."""
    STAGE.break_(broken, locked if broken == "undo b" else unanswered)
    handle = started(play, "a; b; fail")
    parked(handle)
    STAGE.mend(broken)
    STAGE.hold(broken)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(asker.retry, handle.saga_id) for _ in range(2)]
        results = [asked.result(15) for asked in both]
    assert sorted(bool(r) for r in results) == [False, True]
    (refused,) = [r for r in results if not r]
    assert "under way" in refused.message or "not PARKED" in refused.message
    reached(broken, 2)
    STAGE.let_go(broken)
    assert ended(handle).status is SagaStatus.FAILED
    assert STAGE.count(broken) == 2


def test_changed_code(asker: SagaClient, play: Any) -> None:
    """A saga that its code did not match goes on with the right code, and with its messages."""
    STAGE.crash_at("do c")
    STAGE.hold("do c")
    handle = anew(started(play, "either a b; c; receive approval; d", timeout=3600))
    reached("do c")
    asker.send(handle.saga_id, "approval", "granted")
    before = handle.state().deadline
    STAGE.switched = True
    STAGE.let_go("do c")
    state = parked(handle)
    assert state.reason is not None
    assert "does not match its history at step 1" in state.reason
    assert list(STAGE) == ["do a", "do c"]
    STAGE.switched = False
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 0.5)
    assert asker.retry(handle.saga_id, by="ann")
    assert handle.result(timeout=15) == ["A", "C", "granted", "D"]
    state = ended(handle)
    assert list(STAGE) == ["do a", "do c", "do c", "do d"]
    assert (state.reason, state.needs_attention) == (None, False)
    assert state.deadline is not None
    assert before is not None
    assert timedelta(seconds=0.4) < state.deadline - before < timedelta(seconds=15)


def test_the_time_parked_does_not_count(asker: SagaClient, play: Any) -> None:
    """A saga that was parked for longer than it may take still has the time it had left."""
    STAGE.break_("do b", unanswered)
    handle = started(play, "a; b; c", timeout=2.5)
    since = time.monotonic()
    parked(handle)
    STAGE.mend("do b")
    until(lambda: time.monotonic() > since + 2.6)
    assert asker.retry(handle.saga_id)
    assert handle.result(timeout=15) == ["A", "B", "C"]


def test_changed_code_while_it_is_undone(asker: SagaClient, play: Any) -> None:
    """Parked in the middle of its unwinding, it goes on there: what is undone stays so."""
    STAGE.crash_at("undo b")
    STAGE.hold("undo b")
    handle = anew(started(play, "either a b; b; c; fail"))
    reached("undo b")
    STAGE.switched = True
    STAGE.let_go("undo b")
    state = parked(handle)
    assert state.turned_at is not None
    late = asker.cancel(handle.saga_id)
    assert (late.accepted, late.status) == (False, SagaStatus.PARKED)
    STAGE.switched = False
    assert asker.retry(handle.saga_id)
    with pytest.raises(SagaFailedError) as caught:
        handle.result(timeout=15)
    assert [r.step_id for r in caught.value.undone] == [3, 2, 1]
    assert list(STAGE)[3:] == ["undo c", "undo b", "undo b", "undo a"]
    assert undos(handle) == ["3", "2", "1"]


def test_it_parks_again_at_once(asker: SagaClient, play: Any) -> None:
    """A saga whose code is still wrong parks anew, says so, and can be taken up later."""
    STAGE.results["x"] = threading.Lock()
    handle = started(play, "a; return x")
    first = parked(handle)
    result = asker.retry(handle.saga_id)
    assert result.accepted
    assert result.status is not SagaStatus.PARKED or "parked meanwhile" in result.message
    until(lambda: asker.get(handle.saga_id).status is SagaStatus.PARKED)
    state = parked(handle)
    assert state.reason == first.reason
    STAGE.results.clear()
    until(lambda: asker.retry(handle.saga_id))
    assert handle.result(timeout=15) == ["A", "x"]
    assert list(STAGE) == ["do a"]


def test_a_step_that_did_not_know(asker: SagaClient, play: Any) -> None:
    """A step whose outcome was not known is run again under its key, and then undone if need be."""
    STAGE.break_("do b", unanswered)
    handle = started(play, "a; b; fail")
    state = parked(handle)
    assert [s.status for s in state.steps] == [StepStatus.COMPLETED, StepStatus.UNKNOWN]
    assert state.steps[1].name == state.steps[0].name
    STAGE.mend("do b")
    assert asker.retry(handle.saga_id)
    with pytest.raises(SagaFailedError, match="no"):
        handle.result(timeout=15)
    assert list(STAGE) == ["do a", "do b", "do b", "undo b", "undo a"]


@pytest.mark.parametrize("script", ["a; b; c", "a; c; return x"])
def test_cancel_of_a_parked_saga(asker: SagaClient, play: Any, script: str) -> None:
    """A saga that the machinery had parked can be undone instead, also when every step is done."""
    STAGE.results["x"] = STAGE.results["b"] = threading.Lock()
    handle = started(play, script)
    parked(handle)
    STAGE.results.clear()
    result = asker.cancel(handle.saga_id, "no stock", wait=True)
    state = ended(handle)
    assert (result.accepted, state.status) == (True, SagaStatus.FAILED)
    if script == "a; b; c":
        assert list(STAGE) == ["do a", "do b", "do b", "undo b", "undo a"]  # b is settled first
    else:
        assert list(STAGE) == ["do a", "do c", "undo c", "undo a"]
