"""A saga's arguments: fit to be stored, rebuilt from plain JSON, compared with those of a run."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from steps._attempts import Codec

from ._errors import SagaUsageError

_FROM_TEXT: dict[Any, Callable[[str], Any]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    Decimal: Decimal,
    UUID: UUID,
}
_MAPPINGS = (dict, Mapping, MutableMapping)


def check_storable(
    signature: inspect.Signature,
    saga: str,
    codec: Codec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """
    See that the arguments of a start can be stored and read again.

    Raises:
        TypeError: They do not fit the saga's parameters.
        SagaUsageError: One of them cannot; the message names it.
    """
    arguments = signature.bind(*args, **kwargs).arguments
    try:
        codec.loads(codec.dumps((args, dict(kwargs))))
        return
    except Exception as error:
        whole = error
    for name, value in arguments.items():
        try:
            codec.loads(codec.dumps(value))
        except Exception as error:
            raise SagaUsageError(
                f"Argument {name!r} of saga {saga!r} cannot be stored: {type(value).__name__} "
                f"does not survive being pickled ({type(error).__name__}: {error}). Pass plain "
                f"data, or an ID by which a step can look the thing up. Nothing was started."
            ) from error
    raise SagaUsageError(
        f"The arguments of saga {saga!r} cannot be stored ({whole!r}). Nothing was started."
    ) from whole


def rebuild(value: Any, hint: Any) -> Any:
    """
    `value`, which came as plain JSON, as what the type hint says.

    Knows dataclasses, pydantic models, enums, times, Decimal, UUID, and containers, unions and
    optionals of these. A value that is of the right kind already stays what it is.

    Raises:
        ValueError: It cannot be one; the message names the field.
        TypeError: Likewise.
    """
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return rebuild(value, get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return _rebuild_union(value, get_args(hint))
    if isinstance(value, list) and isinstance(origin, type) and issubclass(origin, Collection):
        return _rebuild_items(value, origin, get_args(hint))
    if isinstance(value, dict) and origin in _MAPPINGS and len(get_args(hint)) == 2:
        key, item = get_args(hint)
        return {rebuild(k, key): rebuild(v, item) for k, v in value.items()}
    if hint is Any or not isinstance(hint, type) or _is_a(value, hint):
        return value
    return _rebuild_plain(value, hint)


def _rebuild_plain(value: Any, hint: Any) -> Any:
    if isinstance(value, dict) and hasattr(hint, "model_validate"):
        return hint.model_validate(value)
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return _rebuild_dataclass(value, hint)
    if issubclass(hint, enum.Enum):
        return hint(value)
    if isinstance(value, str) and hint in _FROM_TEXT:
        try:
            return _FROM_TEXT[hint](value)
        except ArithmeticError as error:
            raise ValueError(f"{value!r} is no {hint.__name__} ({error})") from error
    if hint is timedelta and isinstance(value, int | float):
        return timedelta(seconds=value)
    if isinstance(value, list) and hint in (tuple, set, frozenset):
        return hint(value)
    return value


def _is_a(value: Any, hint: type) -> bool:
    try:
        return isinstance(value, hint)
    except TypeError:
        return True  # a TypedDict, or a protocol that cannot tell: any value will do


def _rebuild_union(value: Any, hints: tuple[Any, ...]) -> Any:
    if value is None and type(None) in hints:
        return None
    failure: Exception | None = None
    for hint in hints:
        if hint is type(None):
            continue
        try:
            built = rebuild(value, hint)
        except (ValueError, TypeError) as error:
            failure = error
            continue
        kind = get_origin(hint) or hint
        if not isinstance(kind, type) or _is_a(built, kind):
            return built
    if failure is not None:
        raise failure
    return value


def _rebuild_items(value: list[Any], origin: Any, hints: tuple[Any, ...]) -> Any:
    if origin is tuple and hints and hints[-1] is not Ellipsis:
        return tuple(rebuild(v, h) for v, h in zip(value, hints, strict=True))
    item = hints[0] if hints else Any
    built = [rebuild(v, item) for v in value]
    return origin(built) if origin in (tuple, set, frozenset) else built


def _rebuild_dataclass(value: dict[str, Any], hint: Any) -> Any:
    hints = type_hints(hint)
    known = {f.name for f in dataclasses.fields(hint) if f.init}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"{hint.__qualname__} has no field {unknown[0]!r}")
    built = {}
    for name, item in value.items():
        try:
            built[name] = rebuild(item, hints.get(name, Any))
        except (ValueError, TypeError) as error:
            raise ValueError(f"field {name!r} of {hint.__qualname__}: {error}") from error
    return hint(**built)


def type_hints(of: Any) -> dict[str, Any]:
    """The type hints that can be resolved; none where one cannot."""
    try:
        return typing.get_type_hints(of)
    except Exception:
        return {}


def rebuilder(
    fn: Callable[..., Any],
) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    """What DBOS calls with the stored arguments before it runs a dequeued saga."""
    signature = inspect.signature(fn)

    def rebuild_all(
        args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hints = type_hints(fn)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            hint = hints.get(name, Any)
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(rebuild(v, hint) for v in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {k: rebuild(v, hint) for k, v in value.items()}
            else:
                bound.arguments[name] = rebuild(value, hint)
        return bound.args, bound.kwargs

    return rebuild_all


def same_arguments(
    fn: Callable[..., Any],
    codec: Codec,
    given: tuple[tuple[Any, ...], Mapping[str, Any]],
    stored: Any,
) -> bool | None:
    """
    Whether a saga's run was started with these arguments.

    Args:
        fn: The saga's function.
        codec: How arguments are stored.
        given: The arguments of now.
        stored: DBOS's `WorkflowStatus.input`.

    Returns:
        None where that cannot be told: their types do not compare.
    """
    if not isinstance(stored, Mapping):
        return None
    signature = inspect.signature(fn)
    try:
        now = signature.bind(*given[0], **given[1])
        args, kwargs = rebuilder(fn)(tuple(stored["args"]), dict(stored["kwargs"]))
        then = signature.bind(*args, **kwargs)
    except Exception:
        return False
    now.apply_defaults()
    then.apply_defaults()
    left = codec.loads(codec.dumps(dict(now.arguments)))
    right = codec.loads(codec.dumps(dict(then.arguments)))
    try:
        if bool(left == right):
            return True
        comparable = all(_compares(v) for v in left.values())
    except Exception:
        comparable = False
    if codec.dumps(left) == codec.dumps(right):
        return True
    return False if comparable else None


def _compares(value: Any) -> bool:
    """Whether `==` says something about values of this kind, and of what they hold."""
    if isinstance(value, Mapping):
        return all(_compares(k) and _compares(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(_compares(v) for v in value)
    kind: Any = type(value)
    return kind.__eq__ is not object.__eq__
