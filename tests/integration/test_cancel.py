"""Cancel: a saga that is asked to undo itself does, wherever it is, and says why."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sagas import (
    CompensationFailedError,
    SagaCancelledError,
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaStatus,
    StepStatus,
)
from steps import NonRetryableError

from ..conftest import FAST
from .stage import STAGE, ended, pauses, play_async, reached, started, told, waits
from .support import names, until


def cancelled(handle: SagaHandle[Any], reason: str = "no stock") -> SagaCancelledError:
    """Wait for the end, which must be that of a saga that was cancelled."""
    with pytest.raises(SagaCancelledError) as caught:
        handle.result(timeout=15)
    assert caught.value.reason == reason
    assert ended(handle).status is SagaStatus.FAILED
    return caught.value


def test_in_a_step(asker: SagaClient, play: Any) -> None:
    """The step in flight ends, is recorded and undone; no further one begins."""
    STAGE.hold("do b", "undo b")
    handle = started(play, "a; b; c")
    reached("do b")
    result = handle.cancel("no stock", by="ann")
    assert (result.accepted, result.status) == (True, SagaStatus.PENDING)
    state = handle.state()
    assert (state.status, state.stop_requested) == (
        SagaStatus.PENDING,
        "cancelled by ann: no stock",
    )
    assert [s.status for s in state.steps] == [StepStatus.COMPLETED, StepStatus.EXECUTING]
    told(handle.saga_id)
    STAGE.let_go("do b")
    reached("undo b")
    state = handle.state()
    assert (state.status, state.stop_requested) == (SagaStatus.COMPENSATING, None)
    assert state.failure is not None
    assert state.failure.message == "cancelled by ann: no stock"
    assert [s.status for s in state.steps][:2] == [StepStatus.COMPLETED, StepStatus.COMPENSATING]
    STAGE.let_go("undo b")
    error = cancelled(handle)
    assert "cancelled by ann: no stock" in str(error)
    assert [r.step_id for r in error.undone] == [2, 1]
    assert list(STAGE) == ["do a", "do b", "undo b", "undo a"]
    state = handle.state()
    assert [s.status for s in state.steps][:2] == [StepStatus.COMPENSATED] * 2
    assert [(e.verb, e.by, e.reason) for e in state.audit] == [("cancel", "ann", "no stock")]
    assert asker.get(handle.saga_id) == state
    assert asker.history(handle.saga_id) == state.steps


def test_between_steps(asker: SagaClient, play: Any) -> None:
    """A request that is there before a step begins keeps it from beginning."""
    STAGE.hold("do a")
    handle = started(play, "a; b")
    reached("do a")
    assert asker.cancel(handle.saga_id, "no stock")
    told(handle.saga_id)
    STAGE.let_go("do a")
    error = cancelled(handle)
    assert error.failure is not None
    assert error.failure.step_id == 2
    assert list(STAGE) == ["do a", "undo a"]


def test_in_a_queue(asker: SagaClient, play: Any) -> None:
    """A saga that waits for its delay ends without running, and its handle says so at once."""
    handle = started(play, "a", queue=FAST, delay=3600)
    assert handle.status() is SagaStatus.STARTED
    result = asker.cancel(handle.saga_id, "no stock", by="ann", wait=True)
    assert (result.accepted, result.status) == (True, SagaStatus.FAILED)
    error = cancelled(handle)
    assert "by ann" in str(error)
    assert (error.undone, error.failure) == ((), None)
    assert list(STAGE) == []


def test_as_it_leaves_its_queue(asker: SagaClient, play: Any) -> None:
    """Whoever is faster, worker or cancel: the saga is undone, or was never begun."""
    handles = [started(play, "a; b; c", queue=FAST) for _ in range(8)]
    results = [asker.cancel(handle.saga_id, "no stock") for handle in handles]
    for handle, result in zip(handles, results, strict=True):
        state = ended(handle)
        if state.status is SagaStatus.COMPLETED:
            continue  # it had begun its last step
        assert state.status is SagaStatus.FAILED, result
        assert isinstance(state.error, SagaCancelledError)
        assert state.error.reason == "no stock"
    done = {n: STAGE.count(f"do {n}") - STAGE.count(f"undo {n}") for n in "abc"}
    assert len(set(done.values())) == 1


def test_in_a_retry_delay(asker: SagaClient, play: Any) -> None:
    """A step that waits for its next attempt does not wait any longer, and is not tried again."""
    STAGE.break_("do b", lambda: ConnectionError("closed"))
    handle = started(play, "a; slowly b")
    until(lambda: pauses(handle.saga_id))
    began = time.monotonic()
    assert handle.cancel("no stock")
    cancelled(handle)
    assert time.monotonic() - began < 2
    assert list(STAGE) == ["do a", "do b", "undo a"]


@pytest.mark.parametrize("wait", ["receive approval", "sleep 3600"])
@pytest.mark.parametrize("who", ["handle", "client"])
def test_in_a_wait(asker: SagaClient, play: Any, wait: str, who: str) -> None:
    """A wait ends at once, well before its time, and what it is replaced by is in the history."""
    handle = started(play, f"a; {wait}; b")
    until(lambda: waits(handle.saga_id))
    began = time.monotonic()
    if who == "handle":
        assert handle.cancel("no stock", by="ann")
    else:
        assert asker.cancel(handle.saga_id, "no stock", by="ann")
    error = cancelled(handle)
    assert time.monotonic() - began < 2
    assert list(STAGE) == ["do a", "undo a"]
    assert error.failure is not None
    assert error.failure.step == wait.split()[0]


def test_in_a_group(asker: SagaClient, clear_stage: None) -> None:
    """Steps that run at the same time all end, and each that took effect is undone."""
    STAGE.hold("do a", "do b")
    STAGE.break_("do c", lambda: ValueError("no"))
    handle = started(play_async, "all a b c; d")
    for name in "abc":
        reached(f"do {name}")
    assert asker.cancel(handle.saga_id, "no stock")
    told(handle.saga_id)
    STAGE.let_go("do a", "do b")
    with pytest.raises(SagaFailedError) as caught:
        handle.result(timeout=15)
    assert [r.step_id for r in caught.value.undone] == [2, 1]
    assert list(STAGE)[3:] == ["undo b", "undo a"]


def test_in_a_group_that_succeeds(asker: SagaClient, clear_stage: None) -> None:
    """A group in which nothing failed is undone as well, newest first."""
    STAGE.hold("do a", "do b", "do c")
    handle = started(play_async, "all a b c; d")
    for name in "abc":
        reached(f"do {name}")
    assert handle.cancel("no stock")
    told(handle.saga_id)
    STAGE.let_go("do c", "do b", "do a")
    cancelled(handle)
    assert list(STAGE)[3:] == ["undo c", "undo b", "undo a"]


def test_while_it_is_undone(asker: SagaClient, play: Any) -> None:
    """A saga that undoes itself already goes on doing so, as what it was: failed."""
    STAGE.hold("undo b")
    handle = started(play, "a; b; fail")
    reached("undo b")
    result = handle.cancel("no stock", wait=True)
    assert (result.accepted, result.status) == (False, SagaStatus.COMPENSATING)
    assert "is being undone already" in result.message
    STAGE.let_go("undo b")
    state = ended(handle)
    assert type(state.error) is SagaFailedError
    assert state.audit == ()
    assert list(STAGE)[2:] == ["undo b", "undo a"]


def test_after_the_end(asker: SagaClient, play: Any) -> None:
    """What has ended stays as it ended, and the answer tells how."""
    done = started(play, "a")
    assert done.result() == ["A"]
    late = done.cancel("no stock", wait=True)
    assert (late.accepted, late.status) == (False, SagaStatus.COMPLETED)
    assert "Too late" in late.message
    failed = started(play, "fail")
    ended(failed)
    late = asker.cancel(failed.saga_id)
    assert (late.accepted, late.status) == (False, SagaStatus.FAILED)
    assert "no" in late.message


def test_twice(asker: SagaClient, play: Any) -> None:
    """Of two requests the first counts; both are in the audit."""
    STAGE.hold("do a")
    handle = started(play, "a; b")
    reached("do a")
    assert handle.cancel("no stock", by="ann")
    again = asker.cancel(handle.saga_id, "too dear", by="bob")
    assert again.accepted
    assert "already: cancelled by ann" in again.message
    told(handle.saga_id)
    STAGE.let_go("do a")
    cancelled(handle)
    assert [e.by for e in handle.state().audit] == ["ann", "bob"]
    assert list(STAGE) == ["do a", "undo a"]


def test_after_the_last_step(asker: SagaClient, play: Any) -> None:
    """A request that comes during the last step comes too late, and who waits is told."""
    STAGE.hold("do b")
    handle = started(play, "a; b")
    reached("do b")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asker.cancel, handle.saga_id, "no stock", wait=True)
        until(lambda: handle.state().stop_requested)
        told(handle.saga_id)
        STAGE.let_go("do b")
        late = asked.result(15)
    assert (late.accepted, late.status) == (False, SagaStatus.COMPLETED)
    assert "has completed" in late.message
    assert handle.result() == ["A", "B"]
    assert handle.state().stop_requested is None


def test_waiting_for_the_end(asker: SagaClient, play: Any) -> None:
    """Who waits hears what came of it: undone, completed, or parked in an undo."""
    handle = started(play, "a; receive approval")
    until(lambda: waits(handle.saga_id))
    result = handle.cancel("no stock", wait=True)
    assert (result.accepted, result.status) == (True, SagaStatus.FAILED)
    assert "cancelled: no stock" in result.message
    STAGE.break_("undo a", lambda: NonRetryableError("locked"))
    handle = started(play, "a; receive approval")
    until(lambda: waits(handle.saga_id))
    result = asker.cancel(handle.saga_id, "no stock", wait=True)
    assert (result.accepted, result.status) == (False, SagaStatus.PARKED)
    assert "locked" in result.message
    with pytest.raises(CompensationFailedError):
        handle.result()


@pytest.mark.parametrize("script", ["a; try b; return x", "a; try b; c"])
def test_a_body_that_swallows_it(asker: SagaClient, play: Any, script: str) -> None:
    """A body that catches what the step raised, and goes on or returns, is undone all the same."""
    STAGE.hold("do a")
    handle = started(play, script)
    reached("do a")
    assert handle.cancel("no stock")
    told(handle.saga_id)
    STAGE.let_go("do a")
    cancelled(handle)
    assert list(STAGE) == ["do a", "undo a"]
    assert names(handle.saga_id)[-1].startswith("undo:1:")
