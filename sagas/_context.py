"""The running saga: what one execution of a saga knows, and who may call its steps."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from steps._attempts import Codec
from steps._mode import drive, is_async
from steps._policy import FOR_EVER
from steps._undo import bind_by_hand
from steps.abc import Compensation, StepCall

from . import _dbos
from ._control import TurnRound
from ._errors import SagaUsageError
from ._flight import InFlight
from ._group import Group
from ._host import Host, LoopHost
from ._kept import Age
from ._marks import Turn
from ._outcome import stopped_step
from ._performing import perform
from ._scope import Scope, current_scope
from ._stack import Recorded, Stack
from ._stoppable import Stoppable, expiry
from ._verdict import is_unseen
from ._waiting import Waiting, wait

HOPS_TO_BEGIN = 12
"""Turns of the event loop in which a task that was made last must have begun."""


class SagaRun(Stoppable):
    """
    One execution of one saga.

    Attributes:
        fresh: Whether its own caller has just created the saga.
        first: Whether no execution before it can have begun a step.
        live: Whether its body has been handed an outcome that no earlier execution can have had:
            from there on no step that it calls can have been begun before.
        turn: Where the saga turns round, if that is known.
        asked_before: Whether it had been asked to stop when this execution began: it may have run a
            step only to
            learn what there is to undo, so the end of its body does not complete the saga.
        retries: How often its failed undos were taken up again.
        raised: The errors that steps handed to the body, with the step's ID and name.
        begun: The steps that may have taken effect without a recorded outcome, as far as is known.
        inherited: Whether the execution before this one has told what it had begun.
        dead_letter: Whether it was given up, as its process died again and again.
        heard: Whether an outcome was got that no earlier execution can have had.
        struggling: Whether it is marked as needing attention for an undo that fails.
    """

    def __init__(self, saga_id: str, name: str, host: Host, codec: Codec, *, fresh: bool) -> None:
        super().__init__(saga_id, host)
        self.name = name
        self.codec = codec
        self.fresh = fresh
        self.first = fresh
        self.live = fresh
        self.asked_before = False
        self.retries = 0
        self.age = Age()
        self.begun: set[int] = set()
        self.inherited = False
        self.dead_letter = False
        self.struggling = False
        self.heard = False
        self.waiting: Waiting | None = None
        self.ended = threading.Event()
        self.stack = Stack()
        self.turn: Turn | None = None
        self.undo_failure = "halt"
        self.retriable = FOR_EVER
        self.closed = False
        self.raised: list[tuple[BaseException, int, str]] = []
        self.drawn: dict[int, str] = {}
        self.passed: dict[int, str] = {}
        self.in_flight: dict[int, InFlight] = {}
        self.in_body = False
        self.thread = threading.get_ident()
        self.is_async = isinstance(host, LoopHost)
        self.group = Group() if self.is_async else None
        self.unbegun: dict[int, tuple[str, Coroutine[Any, Any, Any]]] = {}
        self.branches: list[tuple[asyncio.Task[Any], BaseException]] = []
        self._rows: list[Recorded] | None = None

    def call(self, call: StepCall) -> Any:
        """Run a step of a sync saga, or return its recorded outcome."""
        self.admit(f"Step {call.name!r}")
        if self.is_async:
            raise SagaUsageError(
                f"Step {call.name!r} is a plain function and would block the event loop of the "
                f"async saga {self.saga_id!r}. Make it async; blocking code in it can run in "
                f"`await asyncio.to_thread(...)`."
            )
        reservation = self.draw(call.name)
        self.in_body = False
        try:
            return drive(perform(self, reservation, call, current_scope.get()))
        except Exception as error:
            self.note_stop(error, current_scope.get())
            raise
        finally:
            self.live = self.live or self.heard
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
            self.admit(f"Step {call.name!r}")
            reservation = self.draw(call.name)
        except BaseException as refusal:
            return _refused(refusal)
        joining = self._join(self.group, reservation, call, current_scope.get())
        self.unbegun[reservation.step_id] = call.name, joining
        return joining

    async def _join(
        self, group: Group, reservation: Any, call: StepCall, scope: Scope | None
    ) -> Any:
        step_id: int = reservation.step_id
        self.unbegun.pop(step_id, None)
        self.admit(f"Step {call.name!r}")
        in_branch = group.in_branch
        fingerprint = call.fingerprint() if in_branch else None
        try:
            work = perform(self, reservation, call, scope, fingerprint)
            return await group.join(step_id, work, scope)
        except Exception as error:
            self.note_stop(error, scope)
            if in_branch:
                task = asyncio.current_task()
                assert task is not None, "a coroutine runs in a task"
                self.branches.append((task, error))
            raise
        finally:
            self.live = self.live or self.heard

    def wait(self, topic: str | None, seconds: float | None) -> Any:
        """Wait in a sync saga for a message; without a topic, for the time to pass."""
        if self.is_async:
            raise SagaUsageError(
                f"A blocking wait would hold up the event loop of the async saga "
                f"{self.saga_id!r}. Use `await receive_async(...)` or `await sleep_async(...)`."
            )
        self.in_body = False
        try:
            return drive(wait(self, topic, seconds))
        finally:
            self.in_body = True

    async def wait_async(self, topic: str | None, seconds: float | None) -> Any:
        """`wait`, in an async saga."""
        if self.group is None:
            raise SagaUsageError(
                f"receive_async() and sleep_async() cannot be awaited in the sync saga "
                f"{self.saga_id!r}. Use receive() and sleep()."
            )
        return await wait(self, topic, seconds)

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

    def admit(self, what: str) -> None:
        """
        See that a step may be called here and now.

        Raises:
            SagaUsageError: It may not.
            SagaFailedError: The saga has been stopped.
            BaseException: As `check`.
        """
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
        if self.waiting is not None:
            raise SagaUsageError(
                f"{what} was called while saga {self.saga_id!r} waits for "
                f"{self.waiting.what}. A saga does one or the other, so that a replay goes the "
                f"same way: make the branch that waits a saga of its own."
            )
        self.check()
        if self.stopped is not None and not self.compensating:
            raise stopped_step(self.saga_id, self.name, self.stopped, began=False)
        scope = current_scope.get()
        for around in () if scope is None else scope.chain():
            if around.left:
                raise SagaUsageError(
                    f"{what} was called in scope {around.name!r} of saga {self.saga_id!r} after "
                    f"the body had left it: await every task that its block starts."
                )
            if around.expired:
                raise stopped_step(self.saga_id, self.name, expiry(around), began=False)

    @property
    def knows_begun(self) -> bool:
        """Whether no other step can have been begun than those in `begun`."""
        return self.live or self.first or self.inherited

    def is_in_doubt(self, step_id: int) -> bool:
        """Whether a step without a checkpoint may have been begun by an execution before."""
        if self.live or self.first:
            return False
        return not self.inherited or step_id in self.begun

    def draw(self, name: str) -> Any:
        """
        Reserve the next step ID.

        Raises:
            TurnRound: It is the one at which the saga turned round.
        """
        reservation = _dbos.reserve()
        if self.turn is not None and reservation.step_id >= self.turn.at:
            self.stop = TurnRound()
            raise self.stop
        if not self.fresh:
            self.drawn[reservation.step_id] = name
        return reservation

    async def rows(self) -> list[Recorded]:
        """The history as this execution found it."""
        if self._rows is None:
            self._rows = [
                Recorded(row["function_id"], row["function_name"], row["error"] is not None)
                for row in await self.host.ask(_dbos.list_steps, self.saga_id)
            ]
        return self._rows

    def pass_pivot(self) -> None:
        """From here on the saga can only go forward."""
        self.pivoted = True
        self.stack.clear()

    def add_compensation(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Push an undo by hand."""
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        self.admit(f"add_compensation({name})")
        if is_async(fn) and not self.is_async:
            raise SagaUsageError(
                f"{name!r} is async and could not be awaited by the sync saga {self.saga_id!r}."
            )
        step_id = self.draw(name).step_id
        self.drawn.pop(step_id, None)
        undo = bind_by_hand(fn, args, kwargs)
        compensation = Compensation(name=name, undo=undo, is_async=is_async(fn))
        if not self.pivoted:
            self.stack.push(step_id, compensation, current_scope.get())


async def _refused(refusal: BaseException) -> Any:
    raise refusal
