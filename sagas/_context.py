"""The running saga: what one execution of a saga knows, and how it runs a step."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from steps._attempts import Codec, run_attempts
from steps._mode import ShuttingDown, alarm, drive, is_async
from steps._timeout import GRACE, limited
from steps._undo import bind_by_hand
from steps.abc import Compensation, Retried, StepCall, current_key

from . import _dbos
from ._control import Fault, Interrupted, TurnRound
from ._errors import SagaUsageError
from ._flight import InFlight
from ._group import Group
from ._marks import Turn
from ._stack import Recorded, Stack
from ._verdict import Progress, check_storable, is_unseen, outcome_unknown

log = logging.getLogger("sagas")

HOPS_TO_BEGIN = 12
"""Turns of the event loop in which a task that was made last must have begun."""

_OTHER_CALL = (
    "step {} {!r} was recorded with other arguments than it is called with now: the branches of "
    "the saga came to it in another order. Start branches in a fixed order (asyncio.as_completed "
    "and asyncio.wait have none for bare coroutines), or make each a saga of its own"
)


class SagaRun:
    """
    One execution of one saga.

    Attributes:
        stop: Once set, raised at every further step: see `_control`.
        turn: Where the saga turns round, if that is known.
        compensating: Whether its undos are running.
        raised: The errors that steps handed to the body, with the step's ID and name.
    """

    def __init__(
        self, saga_id: str, name: str, host: _dbos.Host, codec: Codec, *, fresh: bool
    ) -> None:
        self.saga_id = saga_id
        self.name = name
        self.host = host
        self.codec = codec
        self.fresh = fresh
        self.stack = Stack()
        self.stop: BaseException | None = None
        self.turn: Turn | None = None
        self.compensating = False
        self.closed = False
        self.raised: list[tuple[BaseException, int, str]] = []
        self.drawn: dict[int, str] = {}
        self.passed: dict[int, str] = {}
        self.in_flight: dict[int, InFlight] = {}
        self.in_body = False
        self.thread = threading.get_ident()
        self.is_async = isinstance(host, _dbos.LoopHost)
        self.group = Group() if self.is_async else None
        self.ending = alarm.event
        self.unbegun: dict[int, tuple[str, Coroutine[Any, Any, Any]]] = {}
        self.branches: list[tuple[asyncio.Task[Any], BaseException]] = []
        self._rows: list[Recorded] | None = None

    def call(self, call: StepCall) -> Any:
        """Run a step of a sync saga, or return its recorded outcome."""
        self._admit(f"Step {call.name!r}")
        if self.is_async:
            raise SagaUsageError(
                f"Step {call.name!r} is a plain function and would block the event loop of the "
                f"async saga {self.saga_id!r}. Make it async; blocking code in it can run in "
                f"`await asyncio.to_thread(...)`."
            )
        reservation = self._draw(call.name)
        self.in_body = False
        try:
            return drive(self._perform(reservation, call))
        finally:
            self.in_body = True

    def call_async(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Reserve a step of an async saga now; the coroutine runs it or returns its outcome."""
        if self.group is None:
            # At once: what nobody can await nobody would see.
            raise SagaUsageError(
                f"Step {call.name!r} is async and cannot be awaited in the sync saga "
                f"{self.saga_id!r}. Make the saga async, or the step a plain function."
            )
        try:
            self._admit(f"Step {call.name!r}")
            reservation = self._draw(call.name)
        except BaseException as refusal:
            return _refused(refusal)
        joining = self._join(self.group, reservation, call)
        self.unbegun[reservation.step_id] = call.name, joining
        return joining

    async def _join(self, group: Group, reservation: Any, call: StepCall) -> Any:
        step_id: int = reservation.step_id
        self.unbegun.pop(step_id, None)
        self._admit(f"Step {call.name!r}")
        if not group.in_branch:
            return await group.join(step_id, self._perform(reservation, call))
        work = self._perform(reservation, call, call.fingerprint())
        try:
            return await group.join(step_id, work)
        except Exception as error:
            task = asyncio.current_task()
            assert task is not None, "a coroutine runs in a task"
            self.branches.append((task, error))
            raise

    async def settle(self) -> list[BaseException]:
        """
        Wait until everything that the body began has ended.

        Returns:
            Failures that the body has never looked at, and calls that it never awaited.
        """
        if self.group is None:
            return []
        for _ in range(HOPS_TO_BEGIN):
            if not self.unbegun:
                break
            await asyncio.sleep(0)  # a task that was made just now begins in the next turn
        unseen = await self.group.settle()
        unseen += [error for task, error in self.branches if is_unseen(task, error)]
        for name, joining in self.unbegun.values():
            if inspect.getcoroutinestate(joining) == inspect.CORO_CREATED:
                unseen.append(SagaUsageError(f"Step {name!r} was called, but never awaited."))
            joining.close()
        return unseen

    def _admit(self, what: str) -> None:
        if self.closed:
            raise SagaUsageError(
                f"{what} was called after the body of saga {self.saga_id!r} had ended: await "
                f"every task that the body starts."
            )
        if threading.get_ident() != self.thread:
            raise SagaUsageError(
                f"{what} was called from another thread than that of saga {self.saga_id!r}. Its "
                f"place in the saga would depend on timing: call steps from the saga's own "
                f"body; an async saga runs them concurrently with asyncio.gather."
            )
        self.check()

    def check(self) -> None:
        """
        Go on, or not.

        Raises:
            BaseException: `stop`, or `ShuttingDown`.
        """
        if self.stop is None and self.ending.is_set():
            self.stop = ShuttingDown()
        if self.stop is not None:
            raise self.stop

    def _draw(self, name: str) -> Any:
        reservation = _dbos.reserve()
        if self.turn is not None and reservation.step_id >= self.turn.at:
            self.stop = TurnRound()
            raise self.stop
        if not self.fresh:
            self.drawn[reservation.step_id] = name
        return reservation

    async def _perform(
        self, reservation: Any, call: StepCall, fingerprint: str | None = None
    ) -> Any:
        step_id: int = reservation.step_id
        progress = Progress()

        async def attempt() -> Any:
            return await self.host.mode.call(call.body, call.is_async)

        async def body() -> Any:
            progress.invoked = True
            if self.turn is not None:
                raise TurnRound  # all that began was recorded before the turn: this did not
            result = await self._attempts(step_id, call, attempt, progress)
            if fingerprint is None:
                return result
            if isinstance(result, Retried):
                return replace(result, call=fingerprint)
            return Retried(result, 1, fingerprint)

        try:
            outcome = await self.host.run(reservation, call.name, body)
        except BaseException as error:
            await self._sort_out(error, step_id, call.name, progress)
            raise
        result = outcome
        if isinstance(outcome, Retried):
            result = outcome.result
            if outcome.call is not None and outcome.call != fingerprint:
                self._fault(_OTHER_CALL.format(step_id, call.name), None)
        if not self.fresh:
            self.passed[step_id] = call.name
        if call.undo is not None:
            self.stack.push(step_id, call.undo(result))
        return result

    async def undo(self, reservation: Any, name: str, step_id: int, what: Compensation) -> None:
        """
        Run one undo as a step of its own.

        Raises:
            Exception: It failed for good, and that is recorded.
            Fault: The machinery failed.
        """
        progress = Progress()
        call = StepCall(name, what.undo, str, what.is_async, what.retry, None)

        async def limit(fn: Callable[[], Any], is_async: bool) -> Any:
            grace = min(what.timeout, GRACE)
            return await limited(
                self.host.mode, fn, is_async, name=name, timeout=what.timeout, grace=grace
            )

        async def attempt() -> None:
            result = await limit(what.undo, what.is_async)
            if not inspect.isawaitable(result):
                return
            if self.is_async:  # a lambda around an async function, say
                await limit(lambda: result, True)
                return
            if inspect.iscoroutine(result):
                result.close()
            raise Fault(
                f"{name} returned an awaitable, which a sync saga cannot await, so nothing was "
                f"undone. Make the undo a plain function"
            )

        async def body() -> Any:
            progress.invoked = True
            return await self._attempts(step_id, call, attempt, progress)

        try:
            await self.host.run(reservation, name, body)
        except BaseException as error:
            await self._sort_out(error, reservation.step_id, name, progress)
            raise

    async def _attempts(
        self,
        step_id: int,
        call: StepCall,
        attempt: Callable[[], Coroutine[Any, Any, Any]],
        progress: Progress,
    ) -> Any:
        token = current_key.set(f"{self.saga_id}:{step_id}")
        flight = self.in_flight[step_id] = InFlight(call.name, datetime.now(UTC))

        def failed(count: int, error: Exception) -> None:
            flight.failed, flight.error = count, error
            if self.compensating:
                log.warning(
                    "Saga %s: %s failed, attempt %d: %r", self.saga_id, call.name, count, error
                )

        try:
            result = await run_attempts(
                self.host.mode,
                attempt,
                name=call.name,
                retry=call.retry,
                codec=self.codec,
                before=self.check,
                failed=failed,
            )
        except Exception as error:
            if outcome_unknown(error):
                raise Fault(
                    f"step {step_id} {call.name!r} does not know whether it took effect: {error}"
                ) from error
            progress.error = error
            raise
        finally:
            self.in_flight.pop(step_id, None)
            current_key.reset(token)
        check_storable(self.codec, step_id, call.name, result)
        progress.returned = True
        return result

    async def _sort_out(
        self, error: BaseException, step_id: int, name: str, progress: Progress
    ) -> None:
        """
        Tell a failure of the step, which the body may handle, from all else.

        Raises:
            Fault: The machinery failed.
        """
        if not isinstance(error, Exception):
            # DBOS's control flow, ours, or the end of this execution.
            if not isinstance(error, asyncio.CancelledError):
                self.stop = self.stop or error
            return
        if isinstance(error, _dbos.MISMATCH):
            self._fault(
                f"the saga's code does not match its history at step {step_id} {name!r} ({error}). "
                f"Bring back the code it began with, or use DBOS.patch for the change",
                error,
            )
        if progress.error is not error and (
            progress.invoked or not await self._is_recorded(error, step_id)
        ):
            self._stop_for(error, step_id, name)
        if not self.fresh:
            self.passed[step_id] = name
        self.raised.append((error, step_id, name))

    def _stop_for(self, error: Exception, step_id: int, name: str) -> NoReturn:
        """Stop, as DBOS could not read or record a step."""
        self.check()  # after a shutdown the database is closed
        if not isinstance(error, _dbos.UNAVAILABLE):
            self._fault(f"step {step_id} {name!r} cannot be recorded or read: {error!r}", error)
        log.error(
            "Saga %s stops at step %d %r, as the database failed: %r. It goes on at the next "
            "launch.",
            self.saga_id,
            step_id,
            name,
            error,
        )
        self.stop = self.stop or Interrupted(str(error))
        raise self.stop from error

    def _fault(self, reason: str, cause: BaseException | None) -> NoReturn:
        self.stop = self.stop or Fault(reason)
        raise self.stop from cause

    async def _is_recorded(self, error: Exception, step_id: int) -> bool:
        """Whether a step that was not run here raised what was recorded of it."""
        if self.fresh:
            return False
        try:
            recorded = await self.host.ask(_dbos.list_steps, self.saga_id)
        except Exception:
            return False
        return any(
            r["function_id"] == step_id and type(r["error"]) is type(error) for r in recorded
        )

    async def rows(self) -> list[Recorded]:
        """The history as this execution found it."""
        if self._rows is None:
            self._rows = [
                Recorded(row["function_id"], row["function_name"], row["error"] is not None)
                for row in await self.host.ask(_dbos.list_steps, self.saga_id)
            ]
        return self._rows

    def add_compensation(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Push an undo by hand."""
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        self._admit(f"add_compensation({name})")
        if is_async(fn) and not self.is_async:
            raise SagaUsageError(
                f"{name!r} is async and could not be awaited by the sync saga {self.saga_id!r}."
            )
        step_id = self._draw(name).step_id
        self.drawn.pop(step_id, None)
        undo = bind_by_hand(fn, args, kwargs)
        self.stack.push(step_id, Compensation(name=name, undo=undo, is_async=is_async(fn)))


async def _refused(refusal: BaseException) -> Any:
    raise refusal
