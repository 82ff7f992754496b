"""The running saga: what one execution of a saga knows, and how it runs a step."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from steps._attempts import Codec, run_attempts
from steps._errors import OutcomeUnknownError, RetriesExhaustedError
from steps._mode import ShuttingDown, alarm, drive, is_async
from steps._timeout import GRACE, limited
from steps._undo import bind_by_hand
from steps.abc import Compensation, Retried, StepCall, current_key

from . import _dbos
from ._control import Fault, TurnRound
from ._errors import SagaUsageError
from ._flight import InFlight
from ._group import Group
from ._marks import Turn
from ._stack import Recorded, Stack


class Ticket:
    """
    Proof that the execution which redeems it was created by the very call that issued it.

    Only such an execution may skip the look at its row: every other may have marks to obey.
    """

    def __init__(self) -> None:
        self.used = False
        self._settled = threading.Event()

    def redeem(self) -> bool:
        """Whether this is the first use."""
        first, self.used = not self.used, True
        self._settled.set()
        return first

    def void(self, _: object = None) -> None:
        """The call that issued it is over."""
        self._settled.set()

    def wait(self) -> bool:
        """Wait until it is used or void; whether it was used."""
        self._settled.wait()
        return self.used


current_ticket: ContextVar[Ticket | None] = ContextVar("sagas_ticket", default=None)


@dataclass(slots=True)
class _Progress:
    """How far one step got in this execution."""

    invoked: bool = False
    """There was no checkpoint: DBOS called the step's function."""
    returned: bool = False
    """The body returned; what goes wrong after that is no failure of the step."""
    error: BaseException | None = None
    """What the function raised, for DBOS to record."""


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
        return self._join(self.group, reservation, call)

    async def _join(self, group: Group, reservation: Any, call: StepCall) -> Any:
        self._admit(f"Step {call.name!r}")
        return await group.join(reservation.step_id, self._perform(reservation, call))

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

    async def _perform(self, reservation: Any, call: StepCall) -> Any:
        step_id: int = reservation.step_id
        progress = _Progress()

        async def attempt() -> Any:
            return await self.host.mode.call(call.body, call.is_async)

        async def body() -> Any:
            progress.invoked = True
            if self.turn is not None:
                raise TurnRound  # all that began was recorded before the turn: this did not
            return await self._attempts(step_id, call, attempt, progress)

        try:
            outcome = await self.host.run(reservation, call.name, body)
        except BaseException as error:
            await self._sort_out(error, step_id, call.name, progress)
            raise
        result = outcome.result if isinstance(outcome, Retried) else outcome
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
        progress = _Progress()
        call = StepCall(name, what.undo, what.is_async, what.retry, None)

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
        progress: _Progress,
    ) -> Any:
        token = current_key.set(f"{self.saga_id}:{step_id}")
        self.in_flight[step_id] = InFlight(call.name, datetime.now(UTC))
        try:
            result = await run_attempts(
                self.host.mode,
                attempt,
                name=call.name,
                retry=call.retry,
                codec=self.codec,
                before=self.check,
            )
        except Exception as error:
            if _outcome_unknown(error):
                raise Fault(
                    f"step {step_id} {call.name!r} does not know whether it took effect: {error}"
                ) from error
            progress.error = error
            raise
        finally:
            self.in_flight.pop(step_id, None)
            current_key.reset(token)
        progress.returned = True
        return result

    async def _sort_out(
        self, error: BaseException, step_id: int, name: str, progress: _Progress
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
        if progress.returned:
            self._fault(
                f"what step {step_id} {name!r} returned cannot be stored ({error!r}). The step "
                f"took effect; make it return a value that can be pickled",
                error,
            )
        live = progress.error is error
        if not live:
            self.check()  # the database may be closed already
        if not live and (progress.invoked or not await self._is_recorded(error, step_id)):
            self._fault(f"step {step_id} {name!r} could not be recorded or read: {error!r}", error)
        if not self.fresh:
            self.passed[step_id] = name
        self.raised.append((error, step_id, name))

    def _fault(self, reason: str, cause: BaseException) -> NoReturn:
        self.stop = self.stop or Fault(reason)
        raise self.stop from cause

    async def _is_recorded(self, error: Exception, step_id: int) -> bool:
        """Whether a step that was not run here raised what was recorded of it."""
        if self.fresh:
            return False
        recorded = await self.host.ask(_dbos.list_steps, self.saga_id)
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


def _outcome_unknown(error: Exception) -> bool:
    if isinstance(error, RetriesExhaustedError):
        return isinstance(error.errors[-1], OutcomeUnknownError)
    return isinstance(error, OutcomeUnknownError)
