"""Requests from other processes, and while nothing runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import (
    SagaCancelledError,
    SagaClient,
    SagaHandle,
    SagaStatus,
    SagaTerminatedError,
    StepStatus,
    _running,
)
from steps import NonRetryableError

from .stage import STAGE, ended, pauses, reached, started, told, waits
from .support import until

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


@pytest.mark.slow
@pytest.mark.parametrize("where", ["do b", "receive"])
def test_from_another_process(config: dict[str, Any], database: str, play: Any, where: str) -> None:
    """A process that has only a client stops a saga that runs in another, and hears of its end."""
    with sagas.launch(config, supervision=LOOK_AFTER):
        STAGE.hold("do b")
        handle = started(play, "a; b; c" if where == "do b" else "a; receive approval; c")
        until(lambda: where in STAGE or waits(handle.saga_id))
        ask = f"print(client.cancel({handle.saga_id!r}, 'no stock', by='ann'))"
        assert "accepted=True" in elsewhere(database, ask)
        told(handle.saga_id)
        STAGE.let_go("do b")
        with pytest.raises(SagaCancelledError, match="by ann") as caught:
            handle.result(timeout=15)
        assert caught.value.reason == "no stock"
        effects = ["do a", "do b", "undo b", "undo a"] if where == "do b" else ["do a", "undo a"]
        assert list(STAGE) == effects
        ended(handle)
        tell = f"print(client.get({handle.saga_id!r}).error, client.cancel({handle.saga_id!r}))"
        answer = elsewhere(database, tell)
        assert "cancelled by ann: no stock" in answer
        assert "accepted=False" in answer


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["receive approval", "sleep 3600"])
def test_while_nothing_runs(config: dict[str, Any], database: str, play: Any, wait: str) -> None:
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
def test_while_nothing_runs_in_a_queue(config: dict[str, Any], database: str, play: Any) -> None:
    """A saga that has not begun ends without running, though no application is there to see it."""
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
@pytest.mark.parametrize("where", ["step", "undo"])
def test_it_stays_so(config: dict[str, Any], play: Any, where: str) -> None:
    """No restart takes up a saga that was terminated, with its process gone or alive."""
    entry = "do b" if where == "step" else "undo b"
    STAGE.hold(entry)
    with sagas.launch(config):
        handle = started(play, "a; b; fail")
        reached(entry)
        with SagaClient() as client:
            assert client.terminate(handle.saga_id, reason="mess", by="ann")
    STAGE.let_go(entry)
    until(lambda: _running.of(handle.saga_id) is None)
    before = list(STAGE)
    with sagas.launch(config):
        other = started(play, "z")
        assert other.result(timeout=15) == ["Z"]
        look_again()
        handle = SagaHandle[Any](handle.saga_id)
        assert handle.status() is SagaStatus.TERMINATED
        with pytest.raises(SagaTerminatedError, match="by ann: mess"):
            handle.result()
    assert list(STAGE) == [*before, "do z"]


def look_again() -> None:
    """Have the supervisor look twice more."""
    from sagas._launch import launched

    here: Any = launched()
    supervisor = here._watch._supervisor
    for _ in range(2):
        looked = supervisor._looked
        supervisor._wake.set()
        until(lambda looked=looked: supervisor._looked != looked)


@pytest.mark.parametrize("verb", ["cancel", "terminate", "resolve"])
def test_a_request_in_the_same_process_is_seen_at_once(
    config: dict[str, Any], play: Any, verb: str
) -> None:
    """What is asked for where the saga runs does not wait for the supervisor's next look."""
    STAGE.break_("undo a", lambda: ConnectionError("closed"))
    with sagas.launch(config, supervision=sagas.Supervision(interval=3600)), SagaClient() as client:
        handle = started(play, "a; receive approval" if verb == "cancel" else "a; fail")
        if verb == "cancel":
            STAGE.mend("undo a")
            until(lambda: waits(handle.saga_id))
            assert client.cancel(handle.saga_id)
        else:
            reached("undo a", 3)
            if verb == "terminate":
                assert client.terminate(handle.saga_id)
            else:
                assert client.resolve(handle.saga_id, 1, note="by hand")
        assert ended(handle).status is (
            SagaStatus.TERMINATED if verb == "terminate" else SagaStatus.FAILED
        )


@pytest.mark.parametrize("verb", ["cancel", "terminate", "resolve"])
def test_a_request_that_nobody_here_tells_of(
    config: dict[str, Any], play: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process wrote is found by the supervisor's next look."""
    monkeypatch.setattr(_running, "notice", lambda saga_id: None)
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    with sagas.launch(config, supervision=LOOK_AFTER), SagaClient() as client:
        handle = started(play, "a; receive approval" if verb == "cancel" else "a; slowly b; fail")
        if verb == "cancel":
            until(lambda: waits(handle.saga_id))
            assert client.cancel(handle.saga_id)
        else:
            until(lambda: pauses(handle.saga_id))
            if verb == "terminate":
                assert client.terminate(handle.saga_id)
            else:
                assert client.resolve(handle.saga_id, 2, note="by hand")
        state = ended(handle)
        assert state.status is (SagaStatus.TERMINATED if verb == "terminate" else SagaStatus.FAILED)
        assert STAGE.count("undo b") == (verb != "cancel")
        assert STAGE.count("undo a") == (verb != "terminate")


@pytest.mark.slow
def test_a_message_from_another_process(config: dict[str, Any], database: str, play: Any) -> None:
    """A message wakes a saga that waits in another process, once for a key."""
    with sagas.launch(config):
        handle = started(play, "receive approval; receive approval")
        until(lambda: waits(handle.saga_id))
        send = f"client.send({handle.saga_id!r}, 'approval', {{'n': %s}}, idempotency_key='%s')"
        elsewhere(database, "; ".join(send % what for what in ((1, "k"), (1, "k"), (2, "l"))))
        assert handle.result(timeout=15) == [{"n": 1}, {"n": 2}]


@pytest.mark.slow
def test_retry_from_another_process(config: dict[str, Any], database: str, play: Any) -> None:
    """A process without the saga's code has one go on that is parked in another."""
    STAGE.break_("undo a", lambda: NonRetryableError("locked"))
    with sagas.launch(config):
        handle = started(play, "a; fail")
        assert ended(handle).status is SagaStatus.PARKED
    STAGE.mend("undo a")
    verbs = f"print(client.retry({handle.saga_id!r}, by='ann').accepted)"
    assert elsewhere(database, verbs) == "True\n"
    with sagas.launch(config):
        state = ended(SagaHandle[Any](handle.saga_id))
        until(lambda: SagaHandle[Any](handle.saga_id).status() is SagaStatus.FAILED)
        assert [e.by for e in state.audit] == ["ann"]
    assert list(STAGE) == ["do a", "undo a", "undo a"]
