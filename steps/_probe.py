"""
What a probe must be: a function that can be called in every way in which its step can.

It gets the very arguments of the step's call, so its parameters are those of the step. Rather than
comparing kinds of parameters, this tries the calls: what the step would take as `order`, the probe
must take as `order` too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ._errors import StepDefinitionError
from ._mode import is_async

_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that fits its step."""

    fn: Callable[..., Any]
    is_async: bool
    """Whether calling `fn` returns an awaitable."""


@dataclass(frozen=True, slots=True)
class _Marker:
    """Stands for the argument that a call gives for a parameter of the step."""

    parameter: str


def plan_probe(
    fn: Any, step_signature: inspect.Signature, step_name: str, *, step_is_async: bool, method: bool
) -> Probe:
    """
    See to it that `fn` can find out whether a call of a step happened.

    Args:
        fn: The probe.
        step_signature: The step's parameters.
        step_name: For messages.
        step_is_async: Whether the step is `async def`.
        method: Whether the step is a method; its first parameter may then have another name.

    Raises:
        StepDefinitionError: It cannot.
    """
    if not callable(fn):
        raise StepDefinitionError(f"The probe of step {step_name!r} is no function: {fn!r}.")
    label = getattr(fn, "__qualname__", None) or repr(fn)
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise StepDefinitionError(
            f"The probe {label!r} of step {step_name!r} is a generator: calling it would run "
            f"nothing. Make it a plain or an async function."
        )
    probe_is_async = is_async(fn)
    if probe_is_async and not step_is_async:
        raise StepDefinitionError(
            f"Step {step_name!r} is a plain function, but its probe {label!r} is async. A sync "
            f"saga could not await it: make the probe a plain function, or the step async."
        )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise StepDefinitionError(
            f"The parameters of {fn!r}, the probe of step {step_name!r}, cannot be read. Wrap it "
            f"in a function of your own."
        ) from error
    wrong = _misfit(signature, fn, step_signature, method)
    if wrong is not None:
        raise StepDefinitionError(
            f"The probe {label!r} of step {step_name!r} {wrong}. A probe gets the very arguments "
            f"of the step's call: give it the step's parameters, {_bare(step_signature)}, or *args "
            f"and **kwargs. If it needs more, bind that with functools.partial or in a function of "
            f"your own."
        )
    return Probe(fn, probe_is_async)


def _bare(signature: inspect.Signature) -> str:
    """The parameters as they are written, without annotations."""
    parameters = [p.replace(annotation=Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def _misfit(probe: inspect.Signature, fn: Any, step: inspect.Signature, method: bool) -> str | None:
    """What is wrong with the parameters of a probe; None where nothing is."""
    bound = fn.keywords if isinstance(fn, functools.partial) else {}
    free = _names_that_do_not_count(step, method)
    named = {
        n: p for n, p in probe.parameters.items() if p.kind not in _VARIABLE and n not in bound
    }
    for args, kwargs in _ways_to_call(step, method):
        try:
            taken = probe.bind(*args, **kwargs).arguments
        except TypeError as error:
            return f"cannot be called as the step can: {error}"
        for name, value in taken.items():
            given = value.parameter if isinstance(value, _Marker) else name
            if given != name and given not in free:
                return f"takes as {name!r} what the step takes as {given!r}"
        wrong = _other_defaults(named, step.parameters, taken)
        if wrong is not None:
            return wrong
    return None


def _names_that_do_not_count(step: inspect.Signature, method: bool) -> set[str]:
    """Parameters that nobody gives by keyword."""
    free = {n for n, p in step.parameters.items() if p.kind is Parameter.POSITIONAL_ONLY}
    return free | set(list(step.parameters)[:1]) if method else free


def _other_defaults(
    named: Mapping[str, Parameter],
    of_step: Mapping[str, Parameter],
    taken: Mapping[str, Any],
) -> str | None:
    """What is wrong with those parameters of a probe that a call leaves to their defaults."""
    for name, parameter in named.items():
        if name in taken:
            continue
        if name not in of_step:
            return f"takes {name!r}, which is no parameter of the step"
        if not _same(parameter.default, of_step[name].default):
            return (
                f"has another default for {name!r} than the step: it would look for another call "
                f"than the one that was made"
            )
    return None


def _same(left: Any, right: Any) -> bool:
    try:
        return left is right or bool(type(left) is type(right) and left == right)
    except Exception:
        return False  # an array, say: whoever shares the very object is on the safe side


def _ways_to_call(
    step: inspect.Signature, method: bool
) -> Iterator[tuple[list[_Marker], dict[str, _Marker]]]:
    """
    Calls that stand for all calls of a step.

    Each parameter that can be given by position or by keyword is given in both ways, each that has
    a default is given and left out, and what may be given on top is given and left out.
    """
    parameters = list(step.parameters.values())
    kinds = {p.kind for p in parameters}
    by_position = [p for p in parameters if p.kind <= Parameter.POSITIONAL_OR_KEYWORD]
    by_keyword = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    only = sum(p.kind is Parameter.POSITIONAL_ONLY for p in by_position)
    first = max(only, 1 if method and by_position else 0)
    required = sum(p.default is Parameter.empty for p in by_position)
    for everything in (True, False):
        count = len(by_position) if everything else required
        named = [p.name for p in by_keyword if everything or p.default is Parameter.empty]
        for split in range(count, min(first, count) - 1, -1):
            args = [_Marker(p.name) for p in by_position[:split]]
            names = [p.name for p in by_position[split:count]] + named
            yield args, {n: _Marker(n) for n in names}
    args = [_Marker(p.name) for p in by_position]
    kwargs = {p.name: _Marker(p.name) for p in by_keyword}
    if Parameter.VAR_POSITIONAL in kinds:
        yield [*args, _Marker("*")], kwargs
    if Parameter.VAR_KEYWORD in kinds:
        yield args, {**kwargs, "any other keyword": _Marker("**")}
