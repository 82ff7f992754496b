"""What structures a saga's body: `scope`, and the point of no return, `pivot`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from steps._mode import drive
from steps._names import check_name
from steps._policy import ONE_ATTEMPT, Seconds, seconds
from steps.abc import StepCall, current_key, current_recorder

from . import _dbos
from ._context import SagaRun
from ._control import TurnRound
from ._errors import SagaUsageError
from ._history import PIVOT
from ._leaving import begin, leave, set_deadline, shielded
from ._performing import perform
from ._scope import Scope, ScopeToken, current_scope


def _run_here(what: str) -> SagaRun:
    run = current_recorder.get()
    if not isinstance(run, SagaRun) or run.saga_id != _dbos.workflow_id_or(run.saga_id):
        raise SagaUsageError(f"{what} was used outside a saga.")
    if current_key.get() is not None or _dbos.in_step():
        raise SagaUsageError(f"{what} was used in a step. It belongs into the saga's body.")
    return run


class scope:
    """
    A nested stack: `with scope(): ...`, in an async saga `async with scope(): ...`.

    An exception that leaves the block undoes the block's steps only, newest first, and then goes
    on as it was; whoever catches it may try another way. When the block ends well, its
    compensations stay in their place on the outer stack. Scopes nest to any depth.

    Args:
        name: For the history; default: "scope".
        timeout: Seconds, or a `timedelta`, from the moment its first step began; past it no further
            step of the block begins, and a wait in it ends at once, with `StepTimeoutError`.

    Durability:
        Nothing is written for it. Its undos are steps of their own; a crash among them goes on
        with the rest. One that failed for good parks the saga where it is, and `retry` goes on
        from there.

    Cancellation:
        A block that is left as its task was cancelled is undone all the same. Where the saga itself
        is stopped, its own unwinding undoes the block.

    Raises:
        SagaUsageError: Outside a saga's body; or its arguments make no sense.
    """

    def __init__(self, *, name: str = "scope", timeout: Seconds | None = None) -> None:
        self._name = check_name(name, "The name of a scope", SagaUsageError)
        self._timeout = (
            None if timeout is None else seconds(timeout, "timeout", error=SagaUsageError)
        )
        self._run: SagaRun | None = None
        self._scope: Scope | None = None
        self._token: ScopeToken | None = None

    def _enter(self, *, is_async: bool) -> tuple[SagaRun, Scope]:
        run = _run_here("scope()")
        if self._run is not None:
            raise SagaUsageError("A scope() is for one block: make another one.")
        if run.is_async is not is_async:
            how = "async with scope()" if run.is_async else "with scope()"
            raise SagaUsageError(f"In saga {run.saga_id!r} it is `{how}`.")
        run.admit("scope()")
        self._run = run
        self._scope = begin(run, self._name, current_scope.get(), self._timeout)
        return run, self._scope

    def _leave(self) -> tuple[SagaRun, Scope]:
        assert self._run is not None, "it was entered"
        assert self._scope is not None, "it was entered"
        assert self._token is not None, "it was entered"
        self._scope.left = True
        current_scope.reset(self._token)
        return self._run, self._scope

    def __enter__(self) -> None:
        run, entered = self._enter(is_async=False)
        drive(set_deadline(run, entered))
        self._token = current_scope.set(entered)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run, left = self._leave()
        if isinstance(error, Exception):
            run.in_body = False
            try:
                drive(leave(run, left, error))
            finally:
                run.in_body = True

    async def __aenter__(self) -> None:
        run, entered = self._enter(is_async=True)
        await set_deadline(run, entered)
        self._token = current_scope.set(entered)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run, left = self._leave()
        if isinstance(error, Exception | asyncio.CancelledError | BaseExceptionGroup):
            await shielded(run, left, error)


def _pivot(run: SagaRun) -> Any:
    """
    See that a pivot may be passed here; its reserved step.

    Raises:
        SagaUsageError: It may not.
    """
    run.admit("pivot()")
    if run.pivoted:
        raise SagaUsageError(f"Saga {run.saga_id!r} has passed its pivot already. A saga has one.")
    if current_scope.get() is not None:
        raise SagaUsageError(
            "pivot() was called in a scope. It drops the whole stack, which a scope cannot: call "
            "it in the body, before or after the block."
        )
    if run.group is not None and run.group.is_busy:
        raise SagaUsageError(
            "pivot() was called while steps are in flight, or in a branch: wait for them first."
        )
    return run.draw(PIVOT)


def _call(*, is_async: bool) -> StepCall:
    async def nothing() -> None: ...

    body = nothing if is_async else (lambda: None)
    return StepCall(PIVOT, body, str, is_async, ONE_ATTEMPT, None)


async def _pass(run: SagaRun, reservation: Any) -> None:
    try:
        await perform(run, reservation, _call(is_async=run.is_async), None)
    except TurnRound:
        raise
    except Exception as error:
        run.note_stop(error, None)
        raise
    finally:
        run.live = run.live or run.heard
    run.pass_pivot()


def pivot() -> None:
    """
    Pass the point of no return.

    Steps before it keep their undo until this returns; steps after it are *retriable* (the term
    is that of C. Richardson's "Microservices Patterns"): the saga can only go forward. A step
    after it that has no policy of its own is tried for ever (`@saga(retriable=...)`); one that
    gives up, and an error that leaves the body, park the saga.

    Durability:
        Recorded as a step, one row. A replayed saga passes it again without effect.

    Cancellation:
        A request that comes before is obeyed here. One that arrives later is refused with
        `PivotPassedError`; the deadline does not count any more; and a saga that DBOS cancels
        after it is resumed forwards.

    Raises:
        SagaFailedError: The saga is stopped: it does not pass.
        SagaUsageError: Outside a saga's body, in a scope, beside steps in flight, or for the second
            time.
    """
    run = _run_here("pivot()")
    if run.is_async:
        raise SagaUsageError(f"In the async saga {run.saga_id!r} it is `await pivot_async()`.")
    drive(_pass(run, _pivot(run)))


async def pivot_async() -> None:
    """`pivot`, in an async saga."""
    run = _run_here("pivot_async()")
    if not run.is_async:
        raise SagaUsageError(f"In the sync saga {run.saga_id!r} it is `pivot()`.")
    await _pass(run, _pivot(run))
