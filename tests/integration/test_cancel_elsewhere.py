"""Cancel from other processes, while nothing runs, and with a crash after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sagas
from sagas import SagaCancelledError, SagaClient, SagaHandle, SagaStatus, StepStatus, _running

from .stage import STAGE, ended, reached, started, waits
from .support import Crash, until

ROOT = Path(__file__).parents[2]
LOOK_AFTER = sagas.Supervision(interval=0.1)


def elsewhere(database: str, lines: str) -> str:
    """What a process of its own prints that has a client of the database, and no saga's code."""
    program = f"import sagas\nwith sagas.SagaClient({database!r}) as client:\n    {lines}\n"
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def is_told(saga_id: str) -> bool:
    """Whether the execution here knows of the request, or has ended."""
    run: Any = _running.of(saga_id)
    return run is None or run.request is not None


@pytest.mark.slow
@pytest.mark.parametrize("where", ["do b", "receive"])
def test_from_another_process(
    config: dict[str, Any], database: str, play: Any, where: str
) -> None:
    """A process that has only a client stops a saga that runs in another, and hears of its end."""
    with sagas.launch(config, supervision=LOOK_AFTER):
        STAGE.hold("do b")
        handle = started(play, "a; b; c" if where == "do b" else "a; receive approval; c")
        until(lambda: where in STAGE or waits(handle.saga_id))
        ask = f"print(client.cancel({handle.saga_id!r}, 'no stock', by='ann'))"
        assert "accepted=True" in elsewhere(database, ask)
        until(lambda: is_told(handle.saga_id))
        STAGE.let_go("do b")
        with pytest.raises(SagaCancelledError, match="by ann") as caught:
            handle.result(timeout=15)
        assert caught.value.reason == "no stock"
        effects = ["do a", "do b", "undo b", "undo a"] if where == "do b" else ["do a", "undo a"]
        assert list(STAGE) == effects
        ended(handle)
        tell = f"print(client.get({handle.saga_id!r}).error, client.cancel({handle.saga_id!r}))"
        told = elsewhere(database, tell)
        assert "cancelled by ann: no stock" in told
        assert "accepted=False" in told


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["receive approval", "sleep 3600"])
def test_while_nothing_runs(
    config: dict[str, Any], database: str, play: Any, wait: str
) -> None:
    """A saga that is cancelled while its application is down turns round when it is back."""
    with sagas.launch(config):
        handle = started(play, f"a; {wait}; b")
        until(lambda: waits(handle.saga_id))
    with SagaClient(database) as client:
        result = client.cancel(handle.saga_id, "no stock", by="ann")
        assert (result.accepted, result.status) == (True, SagaStatus.PENDING)
        state = client.get(handle.saga_id)
        assert state.stop_requested == "cancelled by ann: no stock"
        assert [s.status for s in state.steps][:1] == [StepStatus.COMPLETED]
    assert list(STAGE) == ["do a"]
    with sagas.launch(config):
        handle = SagaHandle[Any](handle.saga_id)
        with pytest.raises(SagaCancelledError, match="by ann"):
            handle.result(timeout=15)
        assert list(STAGE) == ["do a", "undo a"]
        assert ended(handle).status is SagaStatus.FAILED


@pytest.mark.slow
def test_while_nothing_runs_in_a_queue(
    config: dict[str, Any], database: str, play: Any
) -> None:
    """A saga that has not begun ends without running, though no application is there to see it."""
    from dbos import DBOS

    with sagas.launch(config):
        DBOS.register_queue("later", polling_interval_sec=0.05)
        handle = started(play, "a", queue="later", delay=2)
    with SagaClient(database) as client:
        result = client.cancel(handle.saga_id, "no stock", wait=True)
        assert (result.accepted, result.status) == (True, SagaStatus.FAILED)
    with sagas.launch(config):
        other = started(play, "b", queue="later", delay=2)
        assert other.result(timeout=15) == ["B"]
        assert SagaHandle[Any](handle.saga_id).status() is SagaStatus.FAILED
    assert list(STAGE) == ["do b"]


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
    from sagas import _waiting

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
