"""
`@step`: a function whose completed calls are recorded, and can be undone.

A step looks where it is called. In a saga, the saga's recorder takes the call. In a plain DBOS
workflow it is a DBOS step. Anywhere else, and inside another step, it is the plain function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from . import _dbos
from ._errors import StepDefinitionError
from ._fingerprint import fingerprint
from ._key import PlainKey
from ._mode import ASYNC_MARK, is_async
from ._names import Names, check_name
from ._plain_workflow import run_in_workflow
from ._policy import FOR_EVER, ONE_ATTEMPT, UNDO_TIMEOUT, RetryPolicy, Seconds, policy_or, seconds
from ._probe import Probe, plan_probe
from ._undo import Undo, plan_undo
from ._unknown import NotDone, UndoWhen, check_choice, checked_undo_when
from .abc import Compensation, StepCall, current_key, current_recorder

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

_names = Names("step", StepDefinitionError, per_module=True)


class Step(Generic[P, R_co]):
    """
    A step: what `@step` makes of a function. Call it as you would call the function.

    Attributes:
        name: What it is recorded under.
        is_async: Whether the function is `async def`.
    """

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        undo: Callable[..., object] | None,
        name: str | None,
        timeout: Seconds | None,
        retry: RetryPolicy | None,
        undo_when: UndoWhen | None,
        probe: Callable[..., object] | None,
        undo_retry: RetryPolicy | None,
        undo_timeout: Seconds | None,
    ) -> None:
        inner = _plain_function(fn)
        functools.update_wrapper(self, inner)
        self._fn: Callable[..., Any] = inner
        self.name = check_name(
            self._fn.__qualname__ if name is None else name,
            "The name of a step",
            StepDefinitionError,
        )
        if undone_step_name(self.name):
            raise StepDefinitionError(
                f"A step cannot be named {self.name!r}: so its undos are recorded."
            )
        self.is_async = is_async(self._fn)
        setattr(self, ASYNC_MARK, self.is_async)
        self._signature = inspect.signature(self._fn)
        self._plain_names = _plain_names(self._signature)
        self._retry = policy_or(retry, "retry", ONE_ATTEMPT)
        self._undo_retry = policy_or(undo_retry, "undo_retry", FOR_EVER)
        self._undo_timeout = seconds(
            UNDO_TIMEOUT if undo_timeout is None else undo_timeout, "undo_timeout"
        )
        self._timeout = None if timeout is None else seconds(timeout, "timeout")
        self._undo_when: UndoWhen | None = checked_undo_when(undo_when, self.name)
        self._static = isinstance(fn, staticmethod)
        self._class = isinstance(fn, classmethod)
        self._undo: Undo | None = None
        self._probe: Probe | None = None
        if probe is not None:
            self._set_probe(probe)
        if undo is not None:
            self._set_undo(undo, method=False)
        _names.claim(self.name, self._fn, given=name is not None)

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    @overload
    def undo(  # type: ignore[overload-overlap]
        self: Step[Concatenate[S, Q], Coroutine[Any, Any, T]],
        fn: Callable[Concatenate[S, T, Q], object],
        /,
    ) -> Callable[Concatenate[S, T, Q], object]: ...
    @overload
    def undo(  # type: ignore[overload-overlap]
        self: Step[Concatenate[S, Q], Coroutine[Any, Any, T]], fn: Callable[[S, T], object], /
    ) -> Callable[[S, T], object]: ...
    @overload
    def undo(
        self: Step[Concatenate[S, Q], T], fn: Callable[Concatenate[S, T, Q], object], /
    ) -> Callable[Concatenate[S, T, Q], object]: ...
    @overload
    def undo(
        self: Step[Concatenate[S, Q], T], fn: Callable[[S, T], object], /
    ) -> Callable[[S, T], object]: ...
    @overload
    def undo(
        self: Step[Q, Coroutine[Any, Any, T]], fn: Callable[Concatenate[T, Q], object], /
    ) -> Callable[Concatenate[T, Q], object]: ...
    @overload
    def undo(  # type: ignore[overload-overlap]
        self: Step[Q, Coroutine[Any, Any, T]], fn: Callable[[T], object], /
    ) -> Callable[[T], object]: ...
    @overload
    def undo(
        self: Step[Q, T], fn: Callable[Concatenate[T, Q], object], /
    ) -> Callable[Concatenate[T, Q], object]: ...
    @overload
    def undo(self: Step[Q, T], fn: Callable[[T], object], /) -> Callable[[T], object]: ...

    def undo(self, fn: Any, /) -> Any:
        """
        Declare the undo of this step below it; the form for methods.

        `def release(self, result, order)` undoes a method `def reserve(self, order)`. The
        function itself stays what it is.

        Raises:
            StepDefinitionError: The step has an undo already, or this one does not fit.
        """
        if self._undo is not None:
            raise StepDefinitionError(
                f"Step {self.name!r} has an undo already: {self._undo.fn!r}. A step has one undo."
            )
        self._set_undo(fn, method=self._is_method())
        return fn

    @overload
    def probe(
        self: Step[Q, Coroutine[Any, Any, T]], fn: Callable[Q, Awaitable[T | NotDone]], /
    ) -> Callable[Q, Awaitable[T | NotDone]]: ...
    @overload
    def probe(
        self: Step[Q, Coroutine[Any, Any, T]], fn: Callable[Q, T | NotDone], /
    ) -> Callable[Q, T | NotDone]: ...
    @overload
    def probe(self: Step[Q, T], fn: Callable[Q, T | NotDone], /) -> Callable[Q, T | NotDone]: ...

    def probe(self, fn: Any, /) -> Any:
        """
        Declare the probe of this step below it (and above its undo); the form for methods.

        `def find(self, order)` finds out what became of a method `def reserve(self, order)`. The
        function itself stays what it is.

        Raises:
            StepDefinitionError: The step has a probe already, or `undo_when`, or this one does
                not fit.
        """
        if self._probe is not None:
            raise StepDefinitionError(
                f"Step {self.name!r} has a probe already: {self._probe.fn!r}. A step has one probe."
            )
        self._set_probe(fn)
        return fn

    def _is_method(self) -> bool:
        first = next(iter(self._signature.parameters), "")
        return self._class or (not self._static and first in ("self", "cls"))

    def _set_undo(self, fn: Any, *, method: bool) -> None:
        fn = _bare(fn)
        undo = plan_undo(fn, self._signature, self.name, step_is_async=self.is_async, method=method)
        self._check_choice(undo, self._probe)
        self._undo = undo

    def _set_probe(self, fn: Any) -> None:
        probe = plan_probe(
            _bare(fn),
            self._signature,
            self.name,
            step_is_async=self.is_async,
            method=self._is_method(),
        )
        self._check_choice(self._undo, probe)
        self._probe = probe

    def _check_choice(self, undo: Undo | None, probe: Probe | None) -> None:
        check_choice(
            self.name, timeout=self._timeout, undo=undo, undo_when=self._undo_when, probe=probe
        )

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Step[P, R_co]: ...
    @overload
    def __get__(
        self: Step[Concatenate[S, Q], T], instance: S, owner: type | None = None
    ) -> Callable[Q, T]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if self._static:
            return self
        if self._class:
            return MethodType(self, owner if instance is None else type(instance))
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Run the step.

        In a saga: once it has completed, a replay returns the recorded result, and its undo
        is on the saga's stack.

        Durability:
            A crash before or in the function runs it again at the next start, under the same
            `idempotency_key()`. A crash after it has been recorded does not.

        Raises:
            RetriesExhaustedError: Each of several attempts failed.
            StepTimeoutError: An attempt took longer than the step's `timeout`.
            StepFailedError: The function's error cannot be stored.
            Exception: Whatever the function raises.
        """
        if current_key.get() is None:
            recorder = current_recorder.get()
            workflow_id = _dbos.workflow_here()
            # A task that outlives its saga has the recorder but no workflow: it is refused there.
            if recorder is not None and workflow_id in (recorder.saga_id, None):
                if not _dbos.in_step():
                    call = self._call(args, kwargs)
                    return recorder.call_async(call) if self.is_async else recorder.call(call)  # type: ignore[return-value]
            elif workflow_id is not None and not _dbos.in_step():
                return self._in_plain_workflow(workflow_id, args, kwargs)  # type: ignore[no-any-return]
        _refuse_foreign_thread(self)
        if self.is_async:
            return self._plainly_async(args, kwargs)  # type: ignore[return-value]
        with PlainKey():
            result: R_co = self._fn(*args, **kwargs)
            return result

    async def _plainly_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with PlainKey():
            return await self._fn(*args, **kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepCall:
        probe = self._probe
        return StepCall(
            name=self.name,
            body=functools.partial(self._fn, *args, **kwargs),
            fingerprint=functools.partial(fingerprint, args, kwargs),
            is_async=self.is_async,
            retry=self._retry,
            undo=self._compensation(args, kwargs) if self._undo is not None else None,
            timeout=self._timeout,
            attempted=self._undo_when == "attempted",
            probe=None if probe is None else functools.partial(probe.fn, *args, **kwargs),
            probe_is_async=probe is not None and probe.is_async,
            undo_retry=self._undo_retry,
            undo_timeout=self._undo_timeout,
        )

    def _compensation(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Any], Compensation]:
        undo = self._undo
        assert undo is not None
        with_result = undo.bind(self._arguments(args, kwargs))

        def completed(result: Any) -> Compensation:
            return Compensation(
                name=self.name,
                undo=with_result(result),
                is_async=undo.is_async,
                retry=self._undo_retry,
                timeout=self._undo_timeout,
            )

        return completed

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """The arguments of a call by name, defaults included."""
        if not kwargs and self._plain_names is not None and len(args) == len(self._plain_names):
            return dict(zip(self._plain_names, args, strict=True))  # as `bind`, ten times as fast
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _in_plain_workflow(
        self, workflow_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return run_in_workflow(
            workflow_id,
            functools.partial(self._fn, *args, **kwargs),
            name=self.name,
            is_async=self.is_async,
            retry=self._retry,
            timeout=self._timeout,
        )


def _plain_names(signature: inspect.Signature) -> tuple[str, ...] | None:
    """The names of parameters that can all be given by position; None where some cannot."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in kinds for p in signature.parameters.values()):
        return None
    return tuple(signature.parameters)


def _bare(fn: Any) -> Any:
    """The function of a step, a static or a class method that serves as an undo or a probe."""
    if isinstance(fn, staticmethod | classmethod):
        fn = fn.__func__
    return fn._fn if isinstance(fn, Step) else fn


def undone_step_name(name: str) -> bool:
    """Whether a name is one under which undos are recorded."""
    return name.startswith("undo:")


def _plain_function(fn: Any) -> Callable[..., Any]:
    """
    The function that is to become a step.

    Raises:
        StepDefinitionError: `fn` is none, or one already.
    """
    inner = fn.__func__ if isinstance(fn, staticmethod | classmethod) else fn
    if isinstance(inner, Step):
        raise StepDefinitionError(
            f"{inner.name!r} is a step already: decorate the function once, and put all the "
            f"options into that one @step(...)."
        )
    if not inspect.isfunction(inner):
        raise StepDefinitionError(f"@step takes a function, and options by keyword, not {fn!r}.")
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise StepDefinitionError(
            f"{inner.__qualname__!r} is a generator: calling it runs nothing that could be "
            f"recorded. A step is a plain or an async function."
        )
    return inner


ForeignThreadGuard = Callable[[str], None]
_guard: ForeignThreadGuard | None = None


def set_foreign_thread_guard(guard: ForeignThreadGuard) -> None:
    """Let `guard` refuse plain calls that a saga's body has moved to a thread of its own."""
    global _guard
    _guard = guard


def _refuse_foreign_thread(called: Step[Any, Any]) -> None:
    if _guard is not None and current_key.get() is None:
        _guard(called.name)
