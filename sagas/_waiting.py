"""
Waits: for a message, or for time to pass; durable, and ended by whatever stops the saga.

`DBOS.recv` cannot be interrupted, but by a message. So what ends a wait is a message too: a
*sentinel*, sent on the very topic that is waited on, which names the wait by its step ID. What
`recv` returns is recorded, hence a replay goes the same way. A sentinel that comes too late,
as a real message was there before it, is met by a later wait on that topic, which ignores it and
waits on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps._errors import StepTimeoutError

from . import _dbos
from ._control import Interrupted
from ._errors import SagaUsageError
from ._marks import PREFIX
from ._messages import KIND, NONE, SENTINEL, kind
from ._outcome import stopped_step
from ._scope import current_scope
from ._sorting import not_received
from ._stop import Stop, Why

if TYPE_CHECKING:
    from ._context import SagaRun

FOR_EVER = 10 * 365 * 86400.0
"""Seconds that a wait without a limit takes."""

NO_WAIT = 0
"""The ID of no wait: steps are counted from 1."""


@dataclass(slots=True)
class Waiting:
    """A wait that is going on."""

    what: str
    told: bool = False
    """Whether its sentinel is sent."""


def sentinel(wait_id: int, stop: Stop) -> dict[str, Any]:
    """The message that ends a wait."""
    return {KIND: SENTINEL, "wait": wait_id, **stop.as_json()}


async def wait(run: SagaRun, topic: str | None, seconds: float | None) -> Any:
    """
    Wait for a message on `topic`; without one, for `seconds` to pass.

    Returns:
        The message.

    Raises:
        StepTimeoutError: None came in time.
        SagaFailedError: The saga was stopped; that is recorded.
        SagaUsageError: The saga does something else at the same time.
    """
    what = "its time to pass" if topic is None else f"a message on {topic!r}"
    run.admit(f"The wait for {what}")
    if run.group is not None and (run.group.is_busy or run.unbegun):
        raise SagaUsageError(
            f"Saga {run.saga_id!r} was told to wait for {what} while steps of it are in flight, or "
            f"in a branch. Their outcomes are handed over together, so such a wait would hold up "
            f"the others: wait when they are done, or make the branch a saga of its own."
        )
    reservation = run.draw(what)
    run.drawn.pop(reservation.step_id, None)
    first = reservation.step_id + 1
    place = f"{PREFIX}sleep.{first}" if topic is None else topic
    run.waiting = Waiting(what)
    try:
        limit = FOR_EVER if seconds is None else seconds
        found = [] if run.live or run.first else await run.rows()
        message, last = await _receive(run, place, first, limit)
        run.live = run.live or not (run.first or any(row.step_id == last for row in found))
        if topic is not None and message is None:
            assert seconds is not None, "a wait for ever does not run out of time"
            raise StepTimeoutError(f"receive({topic!r})", seconds)
    except Exception as error:
        run.note_stop(error, current_scope.get())
        run.raised.append((error, first, "sleep" if topic is None else "receive"))
        raise
    finally:
        run.waiting = None
    return None if message == NONE else message


async def _receive(run: SagaRun, topic: str, first: int, seconds: float) -> tuple[Any, int]:
    """The next message that is no sentinel of another wait, and the ID it is recorded under."""
    began = time.time()
    wait_id, left = first, seconds
    while True:
        try:
            message = await run.host.receive(
                topic, left, lambda: _look_up(run, topic, first), run.bell
            )
        except BaseException as error:
            not_received(run, error, wait_id)
            raise
        if kind(message) != SENTINEL:
            return message, wait_id
        if message.get("wait") == first:
            stop = Stop.parse(message)
            assert stop is not None, "a sentinel says what has stopped the saga"
            raise stopped_step(run.saga_id, run.name, stop, began=False)
        # Another wait's: this one goes on, until the end that was recorded when it began.
        ends = await run.host.ask(_dbos.recorded_wake_time, run.saga_id, first + 1)
        left = max(0.0, (began + seconds if ends is None else ends) - time.time())
        wait_id += 2


async def _look_up(run: SagaRun, topic: str, first: int) -> float | None:
    """
    See to what a wait has to notice; seconds until the next look at the latest.

    Raises:
        BaseException: As `SagaRun.check`.
    """
    try:
        run.check()
    except Interrupted as end:
        await _release(run, topic, end)
        raise
    assert run.waiting is not None, "only a wait looks up"
    scope = current_scope.get()
    stop = run.stopping(scope)
    if stop is not None and not run.waiting.told:
        run.waiting.told = True
        await run.host.ask(_dbos.send, run.saga_id, sentinel(first, stop), topic)
    deadline = run.next_deadline(scope)
    if deadline is None or run.waiting.told:
        return None
    return max(0.0, deadline - _dbos.now() / 1000) + 0.001


async def _release(run: SagaRun, topic: str, end: Interrupted) -> None:
    """
    End the `DBOS.recv` of a sync execution that is fenced: it would block its thread for ever.

    The sentinel names no wait, so whoever else meets it ignores it; DBOS refuses what the fenced
    execution makes of it.
    """
    if not run.is_async:
        nobodys = sentinel(NO_WAIT, Stop(Why.CANCEL, str(end)))
        await run.host.ask(_dbos.send, run.saga_id, nobodys, topic)
