"""`@step`, typed: an undo that does not fit its step is refused by type checkers right there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, Unpack, overload

from ._policy import RetryPolicy, Seconds
from ._step import Step
from ._typing import OfAttempted, Probed, ProbedOnLoop, Undone, UndoneOnLoop
from ._unknown import NotDone, UndoWhen

P = ParamSpec("P")
U = ParamSpec("U")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class _Options(TypedDict, total=False):
    """The options that have nothing to do with the function's type."""

    name: str | None
    timeout: Seconds | None
    retry: RetryPolicy | None
    undo_retry: RetryPolicy | None
    undo_timeout: Seconds | None


Completed = Literal["completed"] | None
Attempted = Literal["attempted"]


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    undo: None = None,
    undo_when: UndoWhen | None = None,
    probe: None = None,
    **options: Unpack[_Options],
) -> Undone[object, []]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    undo: Callable[Concatenate[T, U], Awaitable[object]],
    undo_when: Completed = None,
    probe: None = None,
    **options: Unpack[_Options],
) -> UndoneOnLoop[T, U]: ...
@overload
def step(
    *,
    undo: Callable[Concatenate[T, U], object],
    undo_when: Completed = None,
    probe: None = None,
    **options: Unpack[_Options],
) -> Undone[T, U]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    undo: OfAttempted[T, U, Awaitable[object]],
    undo_when: Attempted,
    probe: None = None,
    **options: Unpack[_Options],
) -> UndoneOnLoop[T, U]: ...
@overload
def step(
    *,
    undo: OfAttempted[T, U, object],
    undo_when: Attempted,
    probe: None = None,
    **options: Unpack[_Options],
) -> Undone[T, U]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    probe: Callable[Q, Awaitable[R | NotDone]],
    undo: None = None,
    undo_when: None = None,
    **options: Unpack[_Options],
) -> ProbedOnLoop[R, [], Q]: ...
@overload
def step(
    *,
    probe: Callable[Q, R | NotDone],
    undo: None = None,
    undo_when: None = None,
    **options: Unpack[_Options],
) -> Probed[R, [], Q]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    probe: Callable[Q, Awaitable[R | NotDone]],
    undo: Callable[Concatenate[R, U], object],
    undo_when: None = None,
    **options: Unpack[_Options],
) -> ProbedOnLoop[R, U, Q]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    probe: Callable[Q, R | NotDone],
    undo: Callable[Concatenate[R, U], Awaitable[object]],
    undo_when: None = None,
    **options: Unpack[_Options],
) -> ProbedOnLoop[R, U, Q]: ...
@overload
def step(
    *,
    probe: Callable[Q, R | NotDone],
    undo: Callable[Concatenate[R, U], object],
    undo_when: None = None,
    **options: Unpack[_Options],
) -> Probed[R, U, Q]: ...


def step(
    fn: Any = None,
    /,
    *,
    undo: Any = None,
    name: str | None = None,
    timeout: Seconds | None = None,
    retry: RetryPolicy | None = None,
    undo_when: UndoWhen | None = None,
    probe: Any = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> Any:
    """
    Make a function a step.

    Args:
        fn: The function: `def`, `async def`, a method, a static or class method.
        undo: What undoes a completed call: `undo(result)` or `undo(result, <parameters of the
            step, by name>)`; what it returns is ignored. It must be fit to run more than once
            for one call, as a crash in it runs it again: let it go by `idempotency_key()`. A
            plain function serves plain and async steps (it runs on a thread there), an async
            one async steps. For methods, declare it below the step with `@<step>.undo`.
        name: What the step is recorded under; default: the qualified name of the function.
            Renaming a step strands the sagas that are past it.
        timeout: Seconds that one attempt of the step may take, or a `timedelta`; default: no
            limit. An attempt that takes longer has failed with `StepTimeoutError`, and may have
            taken effect: a step with a timeout and an undo needs `undo_when` or a probe. An async
            function is cancelled; a plain one runs on a thread and is left behind, as no thread
            can be stopped. Ignored where the step is called as a plain function.
        retry: How often to try the step; default: once.
        undo_when: Which calls are undone where the outcome of some is unknown. "completed", the
            default where there is no timeout: only those that completed; a call that raised or
            ran out of time counts as not done, and one that a crash interrupted is run again
            first. "attempted": every call that was begun; the undo gets None for the result where
            there is none, and finds out by `idempotency_key()` what there is to undo.
        probe: Instead of `undo_when`, the surest answer: a function that finds out whether a call
            happened. It gets the step's arguments and runs under the step's `idempotency_key()`;
            it returns the result if the step happened, and `NOT_DONE` if not. A plain function
            serves plain and async steps, an async one async steps. It must take all parameters of
            the step, with their defaults. `@<step>.probe` declares it below the step, above the
            undo.
        undo_retry: How often to try the undo, or the probe; default: for ever, 1 s later at
            first, doubling, at most every 5 minutes. Never shared with `retry`.
        undo_timeout: Seconds that one attempt of the undo, or of the probe, may take, or a
            `timedelta`; default: 5 minutes. An attempt that takes longer counts as failed.

    Durability:
        See `Step.__call__`.

    Cancellation:
        An async step that has begun is not torn when its awaiter is cancelled: it goes on to
        its end and is recorded.

    Raises:
        StepDefinitionError: The function or an option is wrong; raised right here.
    """
    options: dict[str, Any] = {
        "undo": undo,
        "name": name,
        "timeout": timeout,
        "retry": retry,
        "undo_when": undo_when,
        "probe": probe,
        "undo_retry": undo_retry,
        "undo_timeout": undo_timeout,
    }
    if fn is not None:
        return Step(fn, **options)
    return lambda wrapped: Step(wrapped, **options)
