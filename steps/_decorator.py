"""`@step`, typed: an undo that does not fit its step is refused by type checkers right there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from ._policy import RetryPolicy, Seconds
from ._step import Step
from ._unknown import UndoWhen

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _AnyUndo(Protocol):
    """A decorator for a step without an undo."""

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Step[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _ByResult(Protocol[R]):
    """A decorator for a step whose undo takes the result."""

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Step[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _ByResultAndArguments(Protocol[P, R]):
    """A decorator for a step whose undo takes the result and the step's parameters."""

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Step[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    undo: None = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> _AnyUndo: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    undo: Callable[[T], Awaitable[object]],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Step[P, Coroutine[Any, Any, T]]]: ...
@overload
def step(  # type: ignore[overload-overlap]
    *,
    undo: Callable[Concatenate[T, P], Awaitable[object]],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Step[P, Coroutine[Any, Any, T]]]: ...
@overload
def step(
    *,
    undo: Callable[[R], object],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> _ByResult[R]: ...
@overload
def step(
    *,
    undo: Callable[Concatenate[R, P], object],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    undo_retry: RetryPolicy | None = None,
    undo_timeout: Seconds | None = None,
) -> _ByResultAndArguments[P, R]: ...


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
        retry: How often to try the step; default: once.
        undo_retry: How often to try the undo; default: for ever, 1 s later at first, doubling,
            at most every 5 minutes. Never shared with `retry`.
        undo_timeout: Seconds that one attempt of the undo may take, or a `timedelta`; default:
            5 minutes. An attempt that takes longer counts as failed.

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
