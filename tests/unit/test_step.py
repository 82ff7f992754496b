"""A step as a plain function: outside a saga, and inside another step."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from steps import RetryPolicy, Step, StepDefinitionError, StepError, idempotency_key, step
from steps._mode import is_async
from steps.abc import current_key
from tests.support.labels import label


@pytest.fixture(autouse=True)
def no_key() -> Iterator[None]:
    assert current_key.get() is None
    yield
    assert current_key.get() is None


@step
def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


@step(name="the triple")
async def triple(n: int) -> int:
    return 3 * n


@step
def key() -> str:
    return idempotency_key()


@step
async def key_async() -> str:
    await asyncio.sleep(0)
    return idempotency_key()


@step
def keys_of_both() -> tuple[str, str]:
    return idempotency_key(), key()


@step
def failing() -> None:
    raise LookupError("x")


@step
async def failing_async() -> None:
    raise LookupError("x")


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @step(name="shop.plain")
    def plain(self, n: int) -> Any:
        return self.name, n

    @plain.undo
    def undo_plain(self, result: Any, n: int) -> Any:
        return self.name, result, n

    @step(name="shop.coroutine")
    async def coroutine(self, n: int) -> Any:
        return self.name, n

    @step(name="shop.static.outer")
    @staticmethod
    def static_outer(n: int) -> Any:
        return "static", n

    @staticmethod
    @step(name="shop.static.inner")
    def static_inner(n: int) -> Any:
        return "static", n

    @step(name="shop.class.outer")
    @classmethod
    def class_outer(cls, n: int) -> Any:
        return cls, n

    @classmethod
    @step(name="shop.class.inner")
    def class_inner(cls, n: int) -> Any:
        return cls, n


class Branch(Shop):
    """Inherits the steps."""


def test_a_step_is_the_function_outside_a_saga() -> None:
    """A step can be unit-tested: without a saga it is the plain function."""
    assert double(4) == 8
    assert double(n=4) == 8
    assert asyncio.run(triple(4)) == 12


def test_errors_of_a_plain_call_pass_as_they_are() -> None:
    """No retry and no rewriting where there is no saga."""
    with pytest.raises(LookupError, match="x"):
        failing()
    with pytest.raises(LookupError, match="x"):
        asyncio.run(failing_async())


def test_wrong_arguments_are_a_type_error() -> None:
    """A call that does not fit the function fails as that of a function does."""
    with pytest.raises(TypeError, match="double"):
        double("a", "b", "c")  # type: ignore[call-arg, arg-type]


def test_a_step_looks_like_its_function() -> None:
    """Name, documentation and signature are those of the function."""
    assert double.name == "double"
    assert triple.name == "the triple"
    assert double.__doc__ == "Twice as much."
    assert double.__name__ == "double"  # type: ignore[attr-defined]
    assert double.__module__ == __name__
    assert list(inspect.signature(double).parameters) == ["n"]
    assert (double.is_async, triple.is_async) == (False, True)
    assert repr(triple) == "<step the triple>"


def test_a_step_with_an_async_function_counts_as_async() -> None:
    """Whoever is given an async step as a function knows that its call must be awaited."""
    assert is_async(triple)
    assert not is_async(double)


def test_attributes_of_the_function_do_not_overwrite_the_step() -> None:
    """A function that carries attributes of its own becomes a step all the same."""

    def marked() -> int:
        return 5

    marked.name = "not the step's"  # type: ignore[attr-defined]
    marked.is_async = True  # type: ignore[attr-defined]
    marked._fn = None  # type: ignore[attr-defined]
    made = step(marked)
    assert made.name.endswith("marked")
    assert not made.is_async
    assert made() == 5


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        (lambda: Shop("a").plain(1), ("a", 1)),
        (lambda: Shop.plain(Shop("b"), 1), ("b", 1)),
        (lambda: Branch("c").plain(n=1), ("c", 1)),
        (lambda: asyncio.run(Shop("d").coroutine(1)), ("d", 1)),
        (lambda: Shop.static_outer(1), ("static", 1)),
        (lambda: Shop("e").static_outer(1), ("static", 1)),
        (lambda: Shop.static_inner(1), ("static", 1)),
        (lambda: Shop("e").static_inner(1), ("static", 1)),
        (lambda: Shop.class_outer(1), (Shop, 1)),
        (lambda: Branch("f").class_outer(1), (Branch, 1)),
        (lambda: Branch.class_inner(1), (Branch, 1)),
        (lambda: Shop("f").class_inner(1), (Shop, 1)),
        (lambda: Shop("g").undo_plain("r", 1), ("g", "r", 1)),
    ],
)
def test_every_kind_of_method_can_be_a_step(call: Any, seen: Any) -> None:
    """Methods, static and class methods are steps, in either order of the decorators."""
    assert call() == seen


def test_a_step_of_a_class_is_the_step() -> None:
    """Looked up on the class, a step is itself, so that `.undo` and `.name` can be had."""
    assert isinstance(Shop.plain, Step)
    assert isinstance(Shop.static_outer, Step)
    assert Shop.plain.name == "shop.plain"


def test_the_undo_of_a_method_fits_the_method() -> None:
    """An undo declared below a method is bound to the instance of the step's call."""
    shop = Shop("h")
    compensation = Shop.plain._compensation((shop, 7), {})("r")
    assert compensation.undo() == ("h", "r", 7)
    assert compensation.name == "shop.plain"


def test_each_plain_call_has_a_key_of_its_own() -> None:
    """A plain call of a step has a new idempotency key each time."""
    keys = {key(), key(), asyncio.run(key_async()), asyncio.run(key_async())}
    assert len(keys) == 4


def test_a_step_in_a_step_has_the_outer_key() -> None:
    """A step called in another one is a part of it, under its key."""
    outer, inner = keys_of_both()
    assert outer == inner


def test_no_key_outside_a_step() -> None:
    """Outside a step there is no key, and no made-up one."""
    with pytest.raises(StepError, match="outside a step"):
        idempotency_key()


def test_concurrent_plain_calls_have_their_own_keys() -> None:
    """Two async steps in flight at the same time do not share a key."""

    async def main() -> list[str]:
        return await asyncio.gather(key_async(), key_async())

    first, second = asyncio.run(main())
    assert first != second


def release(result: int, n: int = 0) -> Any:
    return result, n


@step(name="undone by a step", undo=double)
def made(n: int) -> int:
    return n


def test_a_step_can_be_the_undo_of_another() -> None:
    """A step that is given as an undo is called as the plain function."""
    assert made._compensation((3,), {})(4).undo() == 8


def test_the_compensation_holds_the_options_of_the_undo() -> None:
    """Policy and limit of the undo are its own, never those of the step."""
    patient = RetryPolicy(max_attempts=9)

    @step(
        undo=release,
        retry=RetryPolicy(max_attempts=2),
        undo_retry=patient,
        undo_timeout=timedelta(minutes=1),
    )
    def reserve(n: int = 5) -> int:
        return n

    call = reserve._call((), {})
    assert call.retry.max_attempts == 2
    assert call.undo is not None
    compensation = call.undo(1)
    assert (compensation.retry, compensation.timeout) == (patient, 60.0)
    assert compensation.undo() == (1, 5)


def test_the_defaults_of_an_undo() -> None:
    """Without options an undo is tried for ever, each attempt for at most five minutes."""

    @step(undo=release)
    def reserve_by_default(n: int) -> int:
        return n

    call = reserve_by_default._call((1,), {})
    assert call.undo is not None
    assert call.undo(1).retry.max_attempts is None
    assert call.undo(1).timeout == 300
    assert call.retry.max_attempts == 1


def test_arguments_that_do_not_fit_are_told_before_the_body_runs() -> None:
    """A call with wrong arguments fails at the call, before anything is recorded."""

    @step(undo=release)
    def strict(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="missing a required argument: 'n'"):
        strict._call((), {})


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": 3},
        {"retry": 3},
        {"retry": {"max_attempts": 3}},
        {"undo_retry": "for ever"},
        {"undo_timeout": 0},
        {"undo_timeout": -1},
        {"undo_timeout": float("nan")},
        {"undo_timeout": float("inf")},
        {"undo_timeout": "5 min"},
        {"undo_timeout": True},
        {"undo": "release"},
        {"undo": lambda: None},
    ],
    ids=label,
)
def test_wrong_options_are_refused_at_the_definition(options: dict[str, Any]) -> None:
    """An option that makes no sense is refused where the decorator stands."""
    with pytest.raises(StepDefinitionError):

        @step(**options)
        def never(n: int) -> int:
            return n


@pytest.mark.parametrize("name", ["undo:1:reserve", "undo:12:x#2", "undo:0:"])
def test_a_step_cannot_be_named_like_an_undo(name: str) -> None:
    """A step that would read as the undo of another could make that look undone: refused."""
    with pytest.raises(StepDefinitionError, match="undo"):

        @step(name=name)
        def in_disguise() -> None: ...


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    "fn",
    [
        3,
        "f",
        print,
        Shop,
        Shop("x"),
        Shop("x").undo_plain,
        functools.partial(release, 1),
        generator,
        async_generator,
        double,
        staticmethod(double),
        RetryPolicy(),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_only_functions_become_steps(fn: Any) -> None:
    """What is no function, runs nothing when called, or is a step already is refused."""
    with pytest.raises(StepDefinitionError):
        step(fn)


def test_options_by_position_are_refused() -> None:
    """An option that is given by position is not silently taken for something else."""
    with pytest.raises(TypeError):
        step(release, release)  # type: ignore[call-overload]
    with pytest.raises(StepDefinitionError, match="by keyword"):
        step(RetryPolicy())  # type: ignore[call-overload]


def test_unknown_options_are_refused() -> None:
    """A misspelt option is an error, not ignored."""
    with pytest.raises(TypeError, match="undo_timout"):
        step(undo_timout=3)  # type: ignore[call-overload]


def test_a_step_has_one_undo() -> None:
    """A second undo of a step is refused, however the first was given."""

    @step(undo=release)
    def reserved(n: int) -> int:
        return n

    with pytest.raises(StepDefinitionError, match="has an undo already"):

        @reserved.undo
        def another(result: int) -> None: ...


def test_an_undo_declared_below_stays_a_function() -> None:
    """`@step.undo` returns the function as it was."""

    @step
    def reserved_below(n: int) -> int:
        return n

    assert reserved_below.undo(release) is release
    assert reserved_below._compensation((2,), {})(7).undo() == (7, 2)
