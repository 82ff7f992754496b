"""The verbs of `SagaClient`: what a person, or a program, asks of a saga."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from . import _verbs
from ._gate import Gate
from ._handle import refuse_in_saga, refuse_on_loop
from ._requests import RequestResult

T = TypeVar("T")


class Operations:
    """
    Requests to sagas, from any process that reaches their database.

    Each is written on the saga with its time, `by` and `reason`: `SagaState.audit`.
    """

    _gate: Gate

    def _do(self, verb: Callable[..., T], *args: Any, **options: Any) -> T:
        name = f"SagaClient.{verb.__name__}"
        refuse_in_saga(f"{name}()")
        refuse_on_loop(f"{name}()", f"await {name}_async()")
        return verb(self._gate, *args, **options)

    async def _do_async(self, verb: Callable[..., T], *args: Any, **options: Any) -> T:
        refuse_in_saga(f"SagaClient.{verb.__name__}_async()")
        return await asyncio.to_thread(verb, self._gate, *args, **options)

    def cancel(
        self, saga_id: str, reason: str = "", *, by: str | None = None, wait: bool = False
    ) -> RequestResult:
        """
        Ask a saga to undo what it has done, and to end FAILED with `SagaCancelledError`.

        It is a request; the saga's end tells whether it was in time. The step in flight ends
        first. A saga that has not begun ends without running. A parked one is resumed, to be
        undone, unless it was being undone: then `retry` or `resolve` it.

        Args:
            saga_id: Which saga.
            reason: Why; it becomes the error's `reason`.
            by: Who asks.
            wait: Return after the saga's end only. Accepted then means that it was cancelled.

        Durability:
            Written before this returns: no crash, of this process or the saga's, loses it.

        Raises:
            PivotPassedError: It is past its pivot and can only go forward.
            SagaNotFoundError: There is no saga of this ID.
            SagaUsageError: Bad input; or called in a saga, or on a running event loop.
        """
        result = self._do(_verbs.cancel, saga_id, reason, by=by)
        return _verbs.wait_for_cancel(self._gate, saga_id) if wait and result else result

    async def cancel_async(
        self, saga_id: str, reason: str = "", *, by: str | None = None, wait: bool = False
    ) -> RequestResult:
        """`cancel`, for use on an event loop."""
        result = await self._do_async(_verbs.cancel, saga_id, reason, by=by)
        return await _verbs.wait_async(self._gate, saga_id) if wait and result else result

    def terminate(self, saga_id: str, *, reason: str = "", by: str | None = None) -> RequestResult:
        """
        Stop a saga where it is, whatever its state, and undo nothing: it ends TERMINATED.

        What it had done and not yet undone stands; `history` tells what that is. It cannot be
        taken back.

        Args:
            saga_id: Which saga.
            reason: Why.
            by: Who asks.

        Durability:
            Marked before DBOS is asked to cancel the workflow, so it is never taken for another
            cancel. The body of a step in flight runs to its end; its outcome is not recorded.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
            SagaUsageError: Bad input; or called in a saga, or on a running event loop.
        """
        return self._do(_verbs.terminate, saga_id, reason=reason, by=by)

    async def terminate_async(
        self, saga_id: str, *, reason: str = "", by: str | None = None
    ) -> RequestResult:
        """`terminate`, for use on an event loop."""
        return await self._do_async(_verbs.terminate, saga_id, reason=reason, by=by)

    def retry(
        self, saga_id: str, *, by: str | None = None, reason: str | None = None
    ) -> RequestResult:
        """
        Let a PARKED saga go on from where it is, once what was in its way is mended.

        One that an undo had failed in takes up the undos that failed, and those not tried yet;
        what is undone is not undone again. One that the machinery had stopped goes on forwards or
        backwards, as it was. The time it was parked does not count for its deadline.

        Args:
            saga_id: Which saga.
            by: Who asks.
            reason: What was mended, say.

        Durability:
            A crash leaves the saga parked, or going on. Of two at a time one is not accepted.
            A saga whose execution DBOS had ended with an error is run again by
            `DBOS.rewind_workflow`, which **drops messages it has not received yet**. That does
            no harm to one that is being undone; one whose arguments could not be loaded, say,
            goes on forwards and must be sent them again.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
            SagaUsageError: Bad input; or called in a saga, or on a running event loop.
        """
        return self._do(_verbs.retry, saga_id, by=by, reason=reason)

    async def retry_async(
        self, saga_id: str, *, by: str | None = None, reason: str | None = None
    ) -> RequestResult:
        """`retry`, for use on an event loop."""
        return await self._do_async(_verbs.retry, saga_id, by=by, reason=reason)

    def resolve(
        self, saga_id: str, step_id: int, *, note: str, by: str | None = None
    ) -> RequestResult:
        """
        Declare that the effect of a step was undone by hand, and let the saga go on.

        Its undo is not tried any more, and the rest of the stack goes on; a parked saga is taken
        up again, as by `retry`.

        Args:
            saga_id: Which saga, PARKED or COMPENSATING.
            step_id: Which step, as `history` shows it.
            note: What was done, for whoever reads the history later.
            by: Who did it.

        Durability:
            As for `retry`; the note stays with the step.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
            SagaUsageError: It has no such step, or bad input; or called in a saga, or on a
                running event loop.
        """
        return self._do(_verbs.resolve, saga_id, step_id, note=note, by=by)

    async def resolve_async(
        self, saga_id: str, step_id: int, *, note: str, by: str | None = None
    ) -> RequestResult:
        """`resolve`, for use on an event loop."""
        return await self._do_async(_verbs.resolve, saga_id, step_id, note=note, by=by)

    def send(
        self, saga_id: str, topic: str, message: Any, *, idempotency_key: str | None = None
    ) -> None:
        """
        Send a message to a saga, for its `receive(topic)`.

        Args:
            saga_id: Which saga.
            topic: What it is about; it may not begin with `sagas.`.
            message: Anything that can be stored, None included.
            idempotency_key: Of several messages to a saga with the same key only one arrives.

        Durability:
            Stored before this returns, and received once. It may be sent before the saga waits.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
            SagaUsageError: The saga has ended, or the message cannot be stored, or bad input; or
                called in a saga, or on a running event loop.
        """
        self._do(_verbs.send, saga_id, topic, message, idempotency_key=idempotency_key)

    async def send_async(
        self, saga_id: str, topic: str, message: Any, *, idempotency_key: str | None = None
    ) -> None:
        """`send`, for use on an event loop."""
        await self._do_async(_verbs.send, saga_id, topic, message, idempotency_key=idempotency_key)
