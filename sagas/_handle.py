"""A handle on a saga: its result and its state."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

from steps._mode import ShuttingDown
from steps._policy import Seconds, seconds
from steps.abc import current_recorder

from . import _dbos, _gate, _running, _verbs
from ._control import Interrupted
from ._errors import SagaNotFoundError, SagaOutcomeError, SagaParkedError, SagaUsageError
from ._history import SagaState, StepRecord, failure_of, saga_state, step_records
from ._marks import Marks
from ._outcome import ended_with
from ._requests import RequestResult
from ._status import SagaStatus, StepStatus

R_co = TypeVar("R_co", covariant=True)

FIRST_LOOK = 0.01
LONGEST_LOOK = 0.5
"""Seconds between two looks at a saga that runs elsewhere, at first and at most."""


class SagaHandle(Generic[R_co]):
    """
    A saga that was started, here or elsewhere.

    Attributes:
        saga_id: Its ID, which is the ID of its DBOS workflow.
    """

    def __init__(
        self, saga_id: str, *, future: Future[Any] | None = None, task: Any = None
    ) -> None:
        self.saga_id = saga_id
        self._future = future
        self._task = task

    def for_threads(self) -> SagaHandle[R_co]:
        """This handle, for use off the event loop on which the saga runs, which is this one."""
        if self._task is None:
            return self
        future: Future[Any] = Future()
        waiting = asyncio.ensure_future(self._task.get_result())
        _waiting.add(waiting)
        waiting.add_done_callback(lambda ended: _pass_on(ended, future))
        return SagaHandle(self.saga_id, future=future)

    def __repr__(self) -> str:
        return f"<SagaHandle {self.saga_id!r}>"

    def result(self, *, timeout: Seconds | None = None) -> R_co:
        """
        Wait for the saga's end.

        Args:
            timeout: Seconds to wait, or a `timedelta`; None: for ever. The saga goes on when
                nobody waits any longer.

        Returns:
            What the saga returned.

        Raises:
            SagaFailedError: It failed and was undone.
            SagaParkedError: It cannot go on by itself.
            CompensationFailedError: ... because an undo failed for good.
            SagaTerminatedError: It was stopped on purpose.
            TimeoutError: It has not ended in time.
            SagaUsageError: Called on a running event loop, or in a saga.
        """
        refuse_in_saga("SagaHandle.result()")
        refuse_on_loop("SagaHandle.result()", "await SagaHandle.result_async()")
        patience = None if timeout is None else _patience(timeout)
        began = time.monotonic()
        if self._future is not None:
            try:
                return cast(R_co, self._future.result(patience))
            except SagaParkedError:
                pass  # it may have been taken up again since: the row knows
            except SagaOutcomeError:
                raise
            except ShuttingDown:
                raise _stopped(self.saga_id) from None
            except (Exception, Interrupted):
                # Not in time; or DBOS gave this execution up, and the row knows what came of it.
                if not self._future.done():
                    raise TimeoutError(_late(self.saga_id, patience)) from None
        look = FIRST_LOOK
        while True:
            ended, result = _look(self.saga_id)
            if ended:
                return cast(R_co, result)
            if patience is not None and time.monotonic() - began >= patience:
                raise TimeoutError(_late(self.saga_id, patience))
            time.sleep(look)
            look = min(look * 1.5, LONGEST_LOOK)

    async def result_async(self, *, timeout: Seconds | None = None) -> R_co:
        """`result`, for use on an event loop."""
        refuse_in_saga("SagaHandle.result_async()")
        patience = None if timeout is None else _patience(timeout)
        try:
            async with asyncio.timeout(patience):
                return cast(R_co, await self._wait())
        except TimeoutError:
            raise TimeoutError(_late(self.saga_id, patience)) from None

    async def _wait(self) -> Any:
        try:
            if self._task is not None:
                return await self._task.get_result()
            if self._future is not None:
                return await asyncio.shield(asyncio.wrap_future(self._future))
        except SagaParkedError:
            pass  # as in `result`
        except SagaOutcomeError:
            raise
        except ShuttingDown:
            raise _stopped(self.saga_id) from None
        except (Exception, Interrupted):
            pass  # likewise
        look = FIRST_LOOK
        while True:
            ended, result = await asyncio.to_thread(_look, self.saga_id)
            if ended:
                return result
            await asyncio.sleep(look)
            look = min(look * 1.5, LONGEST_LOOK)

    def status(self) -> SagaStatus:
        """
        The saga's state in one word.

        Raises:
            SagaNotFoundError: It is gone.
        """
        refuse_on_loop("SagaHandle.status()", "await SagaHandle.status_async()")
        return state_of(self.saga_id, with_steps=False).status

    async def status_async(self) -> SagaStatus:
        """`status`, for use on an event loop."""
        return (await asyncio.to_thread(state_of, self.saga_id, with_steps=False)).status

    def state(self) -> SagaState:
        """
        A snapshot of the saga with its steps, their results, errors and times.

        Raises:
            SagaNotFoundError: It is gone.
        """
        refuse_on_loop("SagaHandle.state()", "await SagaHandle.state_async()")
        return state_of(self.saga_id)

    async def state_async(self) -> SagaState:
        """`state`, for use on an event loop."""
        return await asyncio.to_thread(state_of, self.saga_id)

    def cancel(
        self, reason: str = "", *, by: str | None = None, wait: bool = False
    ) -> RequestResult:
        """
        Ask the saga to undo what it has done; see `SagaClient.cancel`.

        Args:
            reason: Why; it becomes the `reason` of the `SagaCancelledError` it ends with.
            by: Who asks.
            wait: Return after the saga's end only. Accepted then means that it was cancelled.

        Durability:
            Written before this returns: no crash, of this process or the saga's, loses it.

        Raises:
            SagaNotFoundError: It is gone.
            SagaUsageError: Bad input; or called in a saga, or on a running event loop.
        """
        refuse_in_saga("SagaHandle.cancel()")
        refuse_on_loop("SagaHandle.cancel()", "await SagaHandle.cancel_async()")
        gate = _gate.here()
        result = _verbs.cancel(gate, self.saga_id, reason, by=by)
        return _verbs.wait_for_cancel(gate, self.saga_id) if wait and result else result

    async def cancel_async(
        self, reason: str = "", *, by: str | None = None, wait: bool = False
    ) -> RequestResult:
        """`cancel`, for use on an event loop."""
        refuse_in_saga("SagaHandle.cancel_async()")
        gate = _gate.here()
        result = await asyncio.to_thread(_verbs.cancel, gate, self.saga_id, reason, by=by)
        return await _verbs.wait_async(gate, self.saga_id) if wait and result else result


_waiting: set[asyncio.Future[Any]] = set()
"""Tasks that nobody else holds: an event loop forgets those."""


def _pass_on(ended: asyncio.Future[Any], future: Future[Any]) -> None:
    _waiting.discard(ended)
    if ended.cancelled():
        future.set_exception(ShuttingDown())
    elif (error := ended.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(ended.result())


def _patience(timeout: Seconds) -> float:
    return seconds(timeout, "timeout", zero=True, error=SagaUsageError)


def _late(saga_id: str, timeout: float | None) -> str:
    return f"Saga {saga_id!r} has not ended within {timeout:g} s; it goes on."


def _stopped(saga_id: str) -> SagaUsageError:
    return SagaUsageError(
        f"Saga {saga_id!r} was interrupted by shutdown(); it goes on at the next launch()."
    )


def _look(saga_id: str) -> tuple[bool, Any]:
    """
    Whether a saga has ended, and its result.

    Raises:
        SagaOutcomeError: It has ended without one.
        SagaNotFoundError: There is no such saga.
    """
    row = _dbos.outside(_dbos.status, saga_id)
    if row is None:
        raise SagaNotFoundError(f"There is no saga {saga_id!r}.")
    error = ended_with(row)
    if error is not None:
        raise error
    return row.status == "SUCCESS", row.output


def state_of(saga_id: str, *, with_steps: bool = True) -> SagaState:
    """
    The state of a saga of this process's database.

    Raises:
        SagaNotFoundError: There is no such saga.
    """
    row = _dbos.outside(_dbos.status, saga_id)
    if row is None:
        raise SagaNotFoundError(f"There is no saga {saga_id!r}.")
    if not with_steps:
        return saga_state(row)
    steps = step_records(_dbos.outside(_dbos.list_steps, saga_id), Marks.parse(row.attributes))
    return saga_state(row, with_in_flight(saga_id, steps))


def with_in_flight(saga_id: str, steps: tuple[StepRecord, ...]) -> tuple[StepRecord, ...]:
    """`steps`, and what is running of the saga in this process at the moment."""
    run = _running.of(saga_id)
    if run is None or not run.in_flight:
        return steps
    records = {s.step_id: s for s in steps}
    for step_id, flight in dict(run.in_flight).items():
        name = flight.name.split(":", 2)[2] if run.compensating else flight.name
        record = records.get(step_id) or StepRecord(step_id, name, StepStatus.EXECUTING)
        failure = None if flight.error is None else failure_of(flight.error, flight.name, step_id)
        if run.compensating:
            record = replace(
                record,
                status=StepStatus.COMPENSATING,
                undo_executed_at=flight.since,
                undo_attempts=flight.failed + 1,
                undo_error=failure,
            )
        elif record.status is StepStatus.EXECUTING:
            attempts = flight.failed + 1
            record = replace(record, executed_at=flight.since, attempts=attempts, error=failure)
        records[step_id] = record
    return tuple(records[i] for i in sorted(records))


def refuse_in_saga(what: str) -> None:
    """
    Refuse a call in a saga, or in a step.

    Raises:
        SagaUsageError: One is running here.
    """
    if _dbos.workflow_id() is not None or current_recorder.get() is not None:
        raise SagaUsageError(
            f"{what} was called in a workflow or a step. Its answer would be another in a replay."
        )


def refuse_on_loop(what: str, instead: str) -> None:
    """
    Refuse a call that would block an event loop.

    Raises:
        SagaUsageError: One is running here.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SagaUsageError(f"{what} would block the running event loop. Use `{instead}`.")
