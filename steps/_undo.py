"""
How an undo is called: with the step's result, then the step's arguments by name.

The undo gets copies: its arguments as they were when the step was called, the result as it was
when the step completed. What the saga's body does to those objects later changes nothing, live
no more than after a crash.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ._errors import StepDefinitionError
from ._mode import is_async

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_ATOMS = frozenset({str, int, float, bool, bytes, complex, type(None)})


class Copied:
    """A value as it was; each `get` gives it anew."""

    __slots__ = ("_data", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._data: bytes | None = None
        if type(value) not in _ATOMS:
            # A connection, say: a step may take what no copy can be made of.
            with contextlib.suppress(Exception):
                self._data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def get(self) -> Any:
        """A copy, or the value itself where none can be made."""
        if self._data is None:
            return self._value
        try:
            return pickle.loads(self._data)
        except Exception:
            return self._value


_NO_ARGUMENTS = Copied(())
_NO_KEYWORDS = Copied({})


@dataclass(frozen=True, slots=True)
class Undo:
    """An undo and what of its step it takes."""

    fn: Callable[..., Any]
    is_async: bool
    takes_self: bool
    """Whether it is a method: called with the step's instance first."""
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    rest: str | None
    """The step's `*args`, where the undo takes them."""
    others: tuple[str, ...]
    """Parameters of the step that go into the undo's `**kwargs`."""
    spread: str | None
    """The step's `**kwargs`, where the undo takes them."""

    def bind(self, arguments: Mapping[str, Any]) -> Callable[[Any], Callable[[], Any]]:
        """
        Copy what the undo needs of the step's arguments.

        Returns:
            A function that takes the step's result and returns the undo, ready to be called.
        """
        first = next(iter(arguments), "")
        instance = (arguments[first],) if self.takes_self else ()
        named = (*self.positional, *self.keywords, *self.others)
        copies = {n: Copied(arguments[n]) for n in named if n in arguments}
        rest = Copied(arguments.get(self.rest, ())) if self.rest else _NO_ARGUMENTS
        spread = Copied(arguments.get(self.spread, {})) if self.spread else _NO_KEYWORDS

        def with_result(result: Any) -> Callable[[], Any]:
            kept = Copied(result)

            def undo() -> Any:
                return self.fn(
                    *instance,
                    kept.get(),
                    *(copies[n].get() for n in self.positional if n in copies),
                    *rest.get(),
                    **{n: copies[n].get() for n in (*self.keywords, *self.others) if n in copies},
                    **spread.get(),
                )

            return undo

        return with_result


def _label(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)


def plan_undo(
    fn: Any, step_signature: inspect.Signature, step_name: str, *, step_is_async: bool, method: bool
) -> Undo:
    """
    Work out how `fn` undoes a step.

    Args:
        fn: The undo.
        step_signature: The step's parameters.
        step_name: For messages.
        step_is_async: Whether the step is `async def`.
        method: Whether `fn` is a method: `undo(self, result, ...)`.

    Raises:
        StepDefinitionError: It cannot.
    """
    if not callable(fn):
        raise StepDefinitionError(f"The undo of step {step_name!r} is no function: {fn!r}.")
    undo_is_async = is_async(fn)
    if undo_is_async and not step_is_async:
        raise StepDefinitionError(
            f"Step {step_name!r} is a plain function, but its undo {_label(fn)!r} is async. A "
            f"sync saga could not await it: make the undo a plain function, or the step async."
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise StepDefinitionError(
            f"The undo {_label(fn)!r} of step {step_name!r} is a generator: calling it would "
            f"run nothing. Make it a plain or an async function."
        )
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError) as error:
        raise StepDefinitionError(
            f"The parameters of {fn!r}, the undo of step {step_name!r}, cannot be read. Wrap it "
            f"in a function of your own."
        ) from error
    if isinstance(fn, functools.partial):
        parameters = [p for p in parameters if p.name not in fn.keywords]
    head = 2 if method else 1
    leading = [p for p in parameters[:head] if p.kind in _POSITIONAL]
    swallowed = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters[:head])
    if len(leading) < head and not swallowed:
        shape = "undo(self, result, ...)" if method else "undo(result, ...)"
        raise StepDefinitionError(
            f"The undo {_label(fn)!r} of step {step_name!r} must take the step's result"
            f"{' after self' if method else ' first'}: {shape}."
        )
    taken = {p.name for p in leading if p.kind is not Parameter.POSITIONAL_ONLY}
    rest = parameters[len(leading) :]
    return _match(fn, rest, taken, step_signature, step_name, undo_is_async, method)


def _match(
    fn: Callable[..., Any],
    parameters: list[Parameter],
    taken: set[str],
    step_signature: inspect.Signature,
    step_name: str,
    undo_is_async: bool,
    method: bool,
) -> Undo:
    of_step = dict(step_signature.parameters)
    if method:
        of_step.pop(next(iter(of_step), ""), None)
    kinds = {p.kind: p.name for p in of_step.values()}
    step_rest = kinds.get(Parameter.VAR_POSITIONAL)
    step_spread = kinds.get(Parameter.VAR_KEYWORD)
    named = [n for n in of_step if n not in (step_rest, step_spread)]
    positional: list[str] = []
    keywords: list[str] = []
    rest = spread = None
    others: tuple[str, ...] = ()
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            rest = step_rest
        elif parameter.kind is Parameter.VAR_KEYWORD:
            others = tuple(n for n in named if n not in (*positional, *keywords, *taken))
            spread = step_spread
        elif parameter.name not in named:
            has = ", ".join(named) or "none"
            raise StepDefinitionError(
                f"The undo {_label(fn)!r} of step {step_name!r} takes {parameter.name!r}, which "
                f"is no parameter of the step (it has: {has}). After the result an undo gets the "
                f"step's own arguments, by name. If it needs no more than that, bind the rest "
                f"with functools.partial or a function of your own."
            )
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            keywords.append(parameter.name)
        else:
            positional.append(parameter.name)
    return Undo(fn, undo_is_async, method, tuple(positional), tuple(keywords), rest, others, spread)


def bind_by_hand(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[], Any]:
    """`fn` with copies of its arguments, ready to be called."""
    copies = [Copied(a) for a in args]
    named = {k: Copied(v) for k, v in kwargs.items()}

    def undo() -> Any:
        return fn(*(c.get() for c in copies), **{k: c.get() for k, c in named.items()})

    return undo
