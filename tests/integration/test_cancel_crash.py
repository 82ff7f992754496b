"""A crash after a request to cancel."""

from __future__ import annotations

from typing import Any

import pytest

from sagas import SagaCancelledError, SagaClient, StepStatus, _waiting

from .stage import STAGE, ended, reached, started, told, waits
from .support import Crash, until


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crashes", "effects"),
    [
        (["do b"], ["do b", "undo b", "undo a"]),
        (["undo b"], ["undo b", "undo b", "undo a"]),
        (["undo a"], ["undo b", "undo a", "undo a"]),
        (
            ["do b", "undo b", "undo a"],
            ["do b", "undo b", "undo b", "undo a", "undo a"],
        ),
    ],
    ids=["step", "first undo", "last undo", "each"],
)
def test_a_crash_after_it(
    asker: SagaClient, play: Any, crashes: list[str], effects: list[str]
) -> None:
    """Wherever the process dies after the request, the saga is undone, each step once."""
    STAGE.hold("do b")
    STAGE.crash_at(*crashes)
    handle = started(play, "a; b; c")
    reached("do b")
    assert asker.cancel(handle.saga_id, "no stock", by="ann")
    told(handle.saga_id)
    STAGE.let_go("do b")
    state = ended(handle)
    assert isinstance(state.error, SagaCancelledError)
    assert state.error.reason == "no stock"
    assert [e.by for e in state.audit] == ["ann"]
    assert [r.step_id for r in state.error.undone] == [2, 1]
    assert list(STAGE) == ["do a", "do b", *effects]
    assert [s.status for s in state.steps][:2] == [StepStatus.COMPENSATED] * 2


@pytest.mark.slow
def test_a_crash_in_a_wait_after_it(asker: SagaClient, play: Any) -> None:
    """A wait that was told to end, by a process that died then, ends when the saga is resumed."""
    handle = started(play, "a; receive approval; b")
    until(lambda: waits(handle.saga_id))
    with pytest.MonkeyPatch.context() as patched:

        def dies(*_: Any) -> None:
            patched.undo()
            raise Crash("before its sentinel is sent")

        patched.setattr(_waiting._dbos, "send", dies)
        assert asker.cancel(handle.saga_id, "no stock")
        until(lambda: _waiting._dbos.send is not dies)
    state = ended(handle)
    assert isinstance(state.error, SagaCancelledError)
    assert list(STAGE) == ["do a", "undo a"]
