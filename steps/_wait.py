"""Durable waits in a saga's body: for a message, or for time to pass."""

from __future__ import annotations

from typing import Any

from . import _dbos
from ._errors import StepError, StepTimeoutError
from ._policy import Seconds
from ._policy import seconds as checked
from .abc import CompensationRecorder, current_key, current_recorder

RESERVED = "sagas."
"""What the topics of the library's own begin with."""

FOR_EVER = 10 * 365 * 86400.0
"""Seconds that a wait without a limit takes in a plain workflow."""


def _recorder(what: str) -> CompensationRecorder | None:
    """
    The saga whose body is running here; None in a plain DBOS workflow.

    Raises:
        StepError: Neither is.
    """
    if current_key.get() is not None or _dbos.in_step():
        raise StepError(
            f"{what} was called in a step. A step is one action: wait in the saga's body, before "
            f"or after it."
        )
    recorder = current_recorder.get()
    workflow_id = _dbos.workflow_here()
    if recorder is not None and workflow_id in (recorder.saga_id, None):
        return recorder
    if workflow_id is None:
        raise StepError(
            f"{what} was called outside a saga: only there is a wait durable, and only a saga can "
            f"be sent a message."
        )
    return None


def _topic(topic: Any) -> str:
    if not isinstance(topic, str) or not topic.strip():
        raise StepError(f"A topic must be text that is not blank, not {topic!r}.")
    if topic.startswith(RESERVED):
        raise StepError(f"The topic {topic!r} is reserved: topics may not begin {RESERVED!r}.")
    return topic


def _limit(timeout: Seconds | None) -> float | None:
    return None if timeout is None else checked(timeout, "timeout", zero=True, error=StepError)


def _in_time(message: Any, topic: str, limit: float | None) -> Any:
    if message is None:
        raise StepTimeoutError(f"receive({topic!r})", FOR_EVER if limit is None else limit)
    return message


def receive(topic: str, *, timeout: Seconds | None = None) -> Any:
    """
    Wait for a message: `SagaClient.send(saga_id, topic, message)`.

    Messages of one topic are received in the order in which they were sent, each once; one that
    was sent before the wait began is there at once.

    Args:
        topic: The topic.
        timeout: Seconds to wait, or a `timedelta`; default: for ever. The limit counts from the
            first time that the saga came here, through crashes and restarts.

    Durability:
        What was received is recorded (two rows, as with `DBOS.recv`). A crash before that leaves
        the message where it is. In a plain DBOS workflow this is `DBOS.recv`.

    Cancellation:
        A cancel request, and the saga's deadline, end the wait at once; that is recorded.

    Raises:
        StepTimeoutError: No message came in time.
        StepError: No saga's body is running here, or the topic or the limit makes no sense.
    """
    limit, topic = _limit(timeout), _topic(topic)
    recorder = _recorder(f"receive({topic!r})")
    if recorder is not None:
        return recorder.wait(topic, limit)
    return _in_time(_dbos.receive(topic, FOR_EVER if limit is None else limit), topic, limit)


async def receive_async(topic: str, *, timeout: Seconds | None = None) -> Any:
    """`receive`, in an async saga."""
    limit, topic = _limit(timeout), _topic(topic)
    recorder = _recorder(f"receive_async({topic!r})")
    if recorder is not None:
        return await recorder.wait_async(topic, limit)
    message = await _dbos.receive_async(topic, FOR_EVER if limit is None else limit)
    return _in_time(message, topic, limit)


def sleep(seconds: Seconds) -> None:
    """
    Wait until a span of time has passed since the saga first came here.

    Args:
        seconds: A number of seconds, or a `timedelta`.

    Durability:
        The end is recorded when the wait begins; after a restart only what is left is waited for.
        In a plain DBOS workflow this is `DBOS.sleep`.

    Cancellation:
        A cancel request, and the saga's deadline, end the wait at once; that is recorded.

    Raises:
        StepError: No saga's body is running here, or `seconds` is no span of time.
    """
    span = checked(seconds, "sleep()", zero=True, error=StepError)
    recorder = _recorder("sleep()")
    if recorder is None:
        _dbos.sleep(span)
    else:
        recorder.wait(None, span)


async def sleep_async(seconds: Seconds) -> None:
    """`sleep`, in an async saga."""
    span = checked(seconds, "sleep_async()", zero=True, error=StepError)
    recorder = _recorder("sleep_async()")
    if recorder is None:
        await _dbos.sleep_async(span)
    else:
        await recorder.wait_async(None, span)
