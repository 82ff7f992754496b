"""Send: messages to sagas that wait, or will."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sagas import SagaClient, SagaNotFoundError, SagaUsageError, StepStatus

from .stage import STAGE, ended, started, waits
from .support import until

COMPLETED, PENDING = StepStatus.COMPLETED, StepStatus.PENDING


def test_to_a_saga_that_waits(asker: SagaClient, play: Any) -> None:
    """The message wakes it, and its history tells what it was."""
    handle = started(play, "a; receive approval; b")
    until(lambda: waits(handle.saga_id))
    asker.send(handle.saga_id, "approval", {"by": "ann", "ok": True})
    assert handle.result(timeout=15) == ["A", {"by": "ann", "ok": True}, "B"]
    record = handle.state().steps[1]
    assert (record.name, record.status, record.result) == (
        "receive",
        StepStatus.COMPLETED,
        {"by": "ann", "ok": True},
    )


def test_before_it_waits(asker: SagaClient, play: Any) -> None:
    """Messages wait for the saga, those of a topic in the order in which they were sent."""
    STAGE.hold("do a")
    handle = started(play, "a; receive y; receive x; receive x")
    for topic, message in (("x", 1), ("x", None), ("y", "z")):
        asyncio.run(asker.send_async(handle.saga_id, topic, message))
    STAGE.let_go("do a")
    assert handle.result(timeout=15) == ["A", "z", 1, None]


def test_none(asker: SagaClient, play: Any) -> None:
    """None is a message like any other, and not the end of the wait's time."""
    handle = started(play, "receive approval")
    until(lambda: waits(handle.saga_id))
    asker.send(handle.saga_id, "approval", None)
    assert handle.result(timeout=15) == [None]
    assert handle.state().steps[0].status is StepStatus.COMPLETED


def test_twice_with_one_key(asker: SagaClient, play: Any) -> None:
    """Of several messages with one key one arrives; other sagas have theirs."""
    first, second = (started(play, "receive x; receive x") for _ in range(2))
    for handle in (first, second, first, second):
        asker.send(handle.saga_id, "x", "once", idempotency_key="k")
    for handle in (first, second):
        until(lambda h=handle: [s.status for s in h.state().steps] == [COMPLETED, PENDING])
        asker.send(handle.saga_id, "x", "twice")
        assert handle.result(timeout=15) == ["once", "twice"]


def test_to_one_that_has_ended(asker: SagaClient, play: Any) -> None:
    """A message that nobody would read is refused, and the refusal tells why."""
    done, failed = started(play, "a"), started(play, "fail")
    for handle in (done, failed):
        ended(handle)
        with pytest.raises(SagaUsageError, match="has ended"):
            asker.send(handle.saga_id, "x", 1)
    with pytest.raises(SagaNotFoundError):
        asker.send("nowhere", "x", 1)


def test_a_message_is_not_lost_to_a_cancelled_wait(asker: SagaClient, play: Any) -> None:
    """A sentinel that comes after a message ends no later wait on that topic."""
    handle = started(play, "a; receive x; receive x")
    until(lambda: waits(handle.saga_id))
    asker.send(handle.saga_id, "x", 1)
    assert asker.cancel(handle.saga_id, "no stock", wait=True)
    state = ended(handle)
    *before, last = state.steps
    assert [s.result for s in before] in (["A"], ["A", 1])
    assert (last.name, last.status) == ("receive", StepStatus.FAILED)
    assert list(STAGE) == ["do a", "undo a"]
