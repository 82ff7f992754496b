"""Terminate: a saga stops where it is, for good, and what it had done stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sagas import (
    SagaClient,
    SagaHandle,
    SagaStatus,
    SagaTerminatedError,
    StepStatus,
    _host,
    _running,
    _supervisor,
)
from steps import NonRetryableError, OutcomeUnknownError

from ..conftest import FAST
from .stage import STAGE, ended, pauses, reached, started, waits
from .support import until


@pytest.fixture(autouse=True)
def nothing_revives(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The sagas that the supervisor has resumed: a terminated one is never among them."""
    resumed: list[str] = []
    resume = _supervisor._dbos.resume

    def noted(saga_id: str, *args: Any) -> None:
        resumed.append(saga_id)
        resume(saga_id, *args)

    monkeypatch.setattr(_supervisor._dbos, "resume", noted)
    yield resumed
    assert resumed == []


def terminated(client: SagaClient, handle: SagaHandle[Any]) -> SagaTerminatedError:
    """Terminate a saga, and see that it says so, and that no execution is left."""
    result = client.terminate(handle.saga_id, reason="mess", by="ann")
    assert (result.accepted, result.status) == (True, SagaStatus.TERMINATED)
    with pytest.raises(SagaTerminatedError, match="terminated by ann: mess") as caught:
        handle.result(timeout=15)
    state = ended(handle)
    assert state.status is SagaStatus.TERMINATED
    assert not state.needs_attention
    assert [(e.verb, e.by, e.reason) for e in state.audit][-1:] == [("terminate", "ann", "mess")]
    assert str(state.error) == str(caught.value)
    assert client.get(handle.saga_id).status is SagaStatus.TERMINATED
    return caught.value


@pytest.mark.parametrize("told", [True, False])
def test_in_a_step(asker: SagaClient, play: Any, told: bool) -> None:
    """The body in flight ends; no further step begins, and nothing is undone."""
    STAGE.hold("do b")
    handle = started(play, "a; b; c")
    reached("do b")
    assert asker.terminate(handle.saga_id, reason="mess", by="ann")
    if told:
        until(lambda: _running.of(handle.saga_id).stop is not None)  # type: ignore[union-attr]
    STAGE.let_go("do b")
    with pytest.raises(SagaTerminatedError) as caught:
        handle.result(timeout=15)
    assert caught.value.failure is None
    state = ended(handle)
    assert [s.status for s in state.steps] == [StepStatus.COMPLETED]
    assert list(STAGE) == ["do a", "do b"]
    for late in (
        asker.terminate(handle.saga_id),
        asker.cancel(handle.saga_id),
        asker.retry(handle.saga_id),
        asker.resolve(handle.saga_id, 1, note="by hand"),
    ):
        assert (late.accepted, late.status) == (False, SagaStatus.TERMINATED)


def test_in_a_retry_delay(asker: SagaClient, play: Any) -> None:
    """A step that waits for its next attempt is not tried again."""
    STAGE.break_("do b", lambda: ConnectionError("closed"))
    handle = started(play, "a; slowly b")
    until(lambda: pauses(handle.saga_id))
    terminated(asker, handle)
    assert list(STAGE) == ["do a", "do b"]


def test_between_quick_attempts_of_an_undo(asker: SagaClient, play: Any) -> None:
    """An undo that fails every few milliseconds is not tried any more, and soon."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    handle = started(play, "a; b; fail")
    reached("undo b", 3)
    error = terminated(asker, handle)
    tries = STAGE.count("undo b")
    assert error.failure is not None
    assert error.failure.error_type == "ValueError"
    assert "undo a" not in STAGE
    assert asker.list(status="TERMINATED")[0].saga_id == handle.saga_id
    assert STAGE.count("undo b") == tries


@pytest.mark.parametrize("wait", ["receive approval", "sleep 3600"])
def test_in_a_wait(
    asker: SagaClient, play: Any, wait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait ends, with its thread, and nothing comes after it."""
    begun: list[str] = []
    run = _host.run_on_daemon

    def counted(job: Callable[[], None]) -> None:
        begun.append("a wait")
        run(lambda: (job(), begun.pop())[0])

    monkeypatch.setattr(_host, "run_on_daemon", counted)
    handle = started(play, f"a; {wait}; b")
    until(lambda: waits(handle.saga_id))
    terminated(asker, handle)
    assert list(STAGE) == ["do a"]
    until(lambda: not begun)


def test_in_an_undo(asker: SagaClient, play: Any) -> None:
    """The undo in flight ends; the older ones are not run."""
    STAGE.hold("undo b")
    handle = started(play, "a; b; fail")
    reached("undo b")
    assert asker.terminate(handle.saga_id, reason="mess", by="ann")
    until(lambda: _running.of(handle.saga_id).stop is not None)  # type: ignore[union-attr]
    STAGE.let_go("undo b")
    ended(handle)
    with pytest.raises(SagaTerminatedError):
        handle.result()
    assert list(STAGE) == ["do a", "do b", "undo b"]


def test_parked_by_an_undo(asker: SagaClient, play: Any) -> None:
    """A saga that a failed undo had parked needs nobody any more."""
    STAGE.break_("undo b", lambda: NonRetryableError("locked"))
    handle = started(play, "a; b; fail")
    assert ended(handle).status is SagaStatus.PARKED
    terminated(asker, handle)
    assert STAGE[-1] == "undo b"
    assert handle.saga_id not in [s.saga_id for s in asker.list(needs_attention=True)]


def test_parked_by_the_machinery(asker: SagaClient, play: Any) -> None:
    """So does one whose outcome nobody knew."""
    STAGE.break_("do b", lambda: OutcomeUnknownError("no answer"))
    handle = started(play, "a; b")
    assert ended(handle).status is SagaStatus.PARKED
    terminated(asker, handle)
    assert list(STAGE) == ["do a", "do b"]
    assert handle.saga_id not in [s.saga_id for s in asker.list(needs_attention=True)]


def test_in_a_queue(asker: SagaClient, play: Any) -> None:
    """A saga that has not begun never does."""
    handle = started(play, "a", queue=FAST, delay=3600)
    terminated(asker, handle)
    assert list(STAGE) == []


def test_after_the_end(asker: SagaClient, play: Any) -> None:
    """What has ended stays as it ended."""
    done, failed = started(play, "a"), started(play, "a; fail")
    for handle, status in ((done, SagaStatus.COMPLETED), (failed, SagaStatus.FAILED)):
        ended(handle)
        late = asker.terminate(handle.saga_id)
        assert (late.accepted, late.status) == (False, status)
        assert ended(handle).status is status
