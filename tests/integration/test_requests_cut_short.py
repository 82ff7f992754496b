"""Requests whose asker died between their marks and what was to follow."""

from __future__ import annotations

from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, SagaTerminatedError, _running
from sagas._gate import DBOSGate
from steps import NonRetryableError, OutcomeUnknownError

from .stage import STAGE, ended, pauses, started, waits
from .support import until

LOOK_AFTER = sagas.Supervision(interval=0.1)


class Died(Exception):
    """Whoever asked died between two halves of it."""


def no_more(*_: Any) -> None:
    raise Died


@pytest.fixture
def dies_after_marking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes marks does nothing after it."""
    monkeypatch.setattr(DBOSGate, "dbos_cancel", no_more)


def test_a_terminate_that_was_cut_short(
    config: dict[str, Any], play: Any, dies_after_marking: None
) -> None:
    """Of a saga that is marked only, the supervisor of its process sees to the rest."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    with sagas.launch(config, supervision=LOOK_AFTER), SagaClient() as client:
        handle = started(play, "a; slowly b; fail")
        until(lambda: pauses(handle.saga_id))
        with pytest.raises(Died):
            client.terminate(handle.saga_id, reason="mess")
        with pytest.raises(SagaTerminatedError, match="mess"):
            handle.result(timeout=15)
        ended(handle)
    assert list(STAGE) == ["do a", "do b", "undo b"]


@pytest.mark.slow
@pytest.mark.parametrize("begun", [True, False])
def test_a_terminate_that_was_cut_short_while_nothing_runs(
    config: dict[str, Any], database: str, play: Any, dies_after_marking: None, begun: bool
) -> None:
    """No step of a saga that is marked only begins when its application is back."""
    with sagas.launch(config):
        DBOS.register_queue("later", polling_interval_sec=0.05)
        options = {} if begun else {"queue": "later", "delay": 2}
        handle = started(play, "a; receive approval; b", **options)
        until(lambda: waits(handle.saga_id) or not begun)
    with SagaClient(database) as client:
        with pytest.raises(Died):
            client.terminate(handle.saga_id, reason="mess")
        client.send(handle.saga_id, "approval", 1)
    with sagas.launch(config):
        with pytest.raises(SagaTerminatedError, match="mess"):
            SagaHandle[Any](handle.saga_id).result(timeout=15)
        until(lambda: _running.of(handle.saga_id) is None)
    assert list(STAGE) == (["do a"] if begun else [])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["cancel", "retry", "resolve"])
def test_a_request_that_was_cut_short(
    config: dict[str, Any], database: str, play: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parked saga whose retry or cancel came no further than its marks is asked again."""
    broken = "do b" if verb == "cancel" else "undo b"
    fault = OutcomeUnknownError if verb == "cancel" else NonRetryableError
    STAGE.break_(broken, lambda: fault("no answer"))
    with sagas.launch(config, supervision=LOOK_AFTER), SagaClient() as client:
        handle = started(play, "a; b; fail")
        assert ended(handle).status is SagaStatus.PARKED
        ask = {
            "cancel": lambda: client.cancel(handle.saga_id, "no stock"),
            "retry": lambda: client.retry(handle.saga_id),
            "resolve": lambda: client.resolve(handle.saga_id, 2, note="by hand"),
        }[verb]
        with monkeypatch.context() as patched:
            patched.setattr(DBOSGate, "resume", no_more)
            patched.setattr(DBOSGate, "rewind", no_more)
            with pytest.raises(Died):
                ask()
        STAGE.mend(broken)
        assert handle.status() is SagaStatus.PARKED
        if verb == "resolve":
            again = ask()
            assert "resolved already. `retry` the saga" in again.message
            assert client.retry(handle.saga_id)
        else:
            assert ask()
        until(lambda: handle.status() is SagaStatus.FAILED)
        ended(handle)
    assert STAGE[-1] == "undo a"
    assert STAGE.count("undo b") == (1 if verb in ("cancel", "resolve") else 2)
