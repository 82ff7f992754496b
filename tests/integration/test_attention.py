"""What needs a person: parked sagas, and undos that fail again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, Supervision
from steps import NonRetryableError, OutcomeUnknownError

from .stage import STAGE, ended, reached, started
from .support import until


@pytest.fixture
def client(config: dict[str, Any]) -> Iterator[SagaClient]:
    supervision = Supervision(attention_after=2, interval=0.1)
    with sagas.launch(config, supervision=supervision), SagaClient() as client:
        yield client


def listed(client: SagaClient) -> dict[str, str | None]:
    """The sagas that need a person, and why."""
    return {s.saga_id: s.reason for s in client.list(needs_attention=True)}


def test_an_undo_that_keeps_failing(client: SagaClient, play: Any) -> None:
    """It is listed with its last error once it has failed so often, until it succeeds."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    STAGE.hold("undo a")
    handle = started(play, "a; b; fail")
    reached("undo b")
    reason = until(lambda: listed(client).get(handle.saga_id))
    assert "undo of step 2 'act" in reason
    assert "ConnectionError: closed" in reason
    state = handle.state()
    assert state.status is SagaStatus.COMPENSATING
    assert (state.needs_attention, state.reason) == (True, listed(client)[handle.saga_id])
    assert [s.saga_id for s in client.list(needs_attention=False)] == []
    STAGE.mend("undo b")
    reached("undo a")
    until(lambda: listed(client) == {})
    state = handle.state()
    assert (state.status, state.reason) == (SagaStatus.COMPENSATING, None)
    STAGE.let_go("undo a")
    assert ended(handle).status is SagaStatus.FAILED


def test_each_undo_is_counted_by_itself(client: SagaClient, play: Any) -> None:
    """That one undo has failed very often hides no later one."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    STAGE.break_("undo a", lambda: ConnectionError("open"))
    handle = started(play, "a; b; fail")
    reached("undo b", 40)
    until(lambda: handle.saga_id in listed(client))
    STAGE.mend("undo b")
    until(lambda: "step 1 " in (listed(client).get(handle.saga_id) or ""))
    assert STAGE.count("undo a") < 30
    assert client.terminate(handle.saga_id)
    assert listed(client) == {}


def test_an_undo_that_is_resolved(client: SagaClient, play: Any) -> None:
    """What a person has dealt with is not listed any more while the rest is undone."""
    STAGE.break_("undo b", lambda: ConnectionError("closed"))
    STAGE.hold("undo a")
    handle = started(play, "a; b; fail")
    until(lambda: handle.saga_id in listed(client))
    assert client.resolve(handle.saga_id, 2, note="by hand")
    reached("undo a")
    assert listed(client) == {}
    STAGE.let_go("undo a")
    assert ended(handle).status is SagaStatus.FAILED


def test_parked_sagas(client: SagaClient, play: Any) -> None:
    """Both kinds of parked sagas are listed, with what they wait for, until they are dealt with."""
    STAGE.break_("undo a", lambda: NonRetryableError("locked"))
    STAGE.break_("do b", lambda: OutcomeUnknownError("no answer"))
    by_undo, by_step = started(play, "a; fail"), started(play, "b")
    assert started(play, "z").result(timeout=15) == ["Z"]
    for handle in (by_undo, by_step):
        assert ended(handle).status is SagaStatus.PARKED
    found = listed(client)
    assert found.keys() == {by_undo.saga_id, by_step.saga_id}
    assert "1:act" in (found[by_undo.saga_id] or "")
    assert "no answer" in (found[by_step.saga_id] or "")
    assert len(client.list(needs_attention=False)) == 1
    assert client.resolve(by_undo.saga_id, 1, note="by hand")
    assert client.terminate(by_step.saga_id)
    until(lambda: listed(client) == {})


@pytest.mark.slow
def test_over_a_restart(config: dict[str, Any], play: Any) -> None:
    """It is still listed while nothing runs, and no more once the undo has succeeded."""
    STAGE.break_("undo a", lambda: ConnectionError("closed"))
    STAGE.hold("undo z")
    supervision = Supervision(attention_after=2, interval=0.1)
    with sagas.launch(config, supervision=supervision), SagaClient() as client:
        handle = started(play, "z; a; fail")
        until(lambda: handle.saga_id in listed(client))
    with SagaClient(config["system_database_url"]) as client:
        assert "closed" in (listed(client)[handle.saga_id] or "")
    STAGE.mend("undo a")
    with sagas.launch(config, supervision=supervision), SagaClient() as client:
        reached("undo z")
        until(lambda: listed(client) == {})
        STAGE.let_go("undo z")
        assert ended(SagaHandle(handle.saga_id)).status is SagaStatus.FAILED
