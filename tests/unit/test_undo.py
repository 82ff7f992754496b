"""How an undo is called: with the step's result, then the step's arguments by name."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps import StepDefinitionError
from steps._undo import Copied, Undo, bind_by_hand, plan_undo

quick = settings(max_examples=30, deadline=None)


def plan(step: Callable[..., Any], undo: Any, **options: Any) -> Undo:
    options = {"step_is_async": inspect.iscoroutinefunction(step), "method": False, **options}
    return plan_undo(undo, inspect.signature(step), "reserve", **options)


def undone(step: Callable[..., Any], undo: Any, *args: Any, **kwargs: Any) -> Any:
    """What `undo` returns after the call of a step that returned "result"."""
    bound = inspect.signature(step).bind(*args, **kwargs)
    bound.apply_defaults()
    return plan(step, undo).bind(bound.arguments)("result")()


def of_two(a: int, b: int = 2) -> None: ...


def of_all(a: int, /, b: int, *rest: int, c: int = 3, **spread: int) -> None: ...


def by_result(result: Any) -> Any:
    return result


def by_nothing(result: Any, *, unknown: int = 0) -> None: ...


async def asynchronously(result: Any) -> Any:
    return result


@pytest.mark.parametrize(
    ("undo", "seen"),
    [
        (lambda r: (r,), ("result",)),
        (lambda r, a: (r, a), ("result", 1)),
        (lambda r, b: (r, b), ("result", 2)),
        (lambda r, a, b: (r, a, b), ("result", 1, 2)),
        (lambda r, b, a: (r, b, a), ("result", 2, 1)),
        (lambda r, /, a: (r, a), ("result", 1)),
        (lambda r, a, /, b: (r, a, b), ("result", 1, 2)),
        (lambda r, *, b: (r, b), ("result", 2)),
        (lambda r, a, *, b: (r, a, b), ("result", 1, 2)),
        (lambda r, a=99: (r, a), ("result", 1)),
        (lambda r, **kw: (r, kw), ("result", {"a": 1, "b": 2})),
        (lambda r, a, **kw: (r, a, kw), ("result", 1, {"b": 2})),
        (lambda r, *rest: (r, rest), ("result", ())),
        (lambda *all_: all_, ("result",)),
    ],
)
def test_an_undo_gets_what_it_names(undo: Any, seen: Any) -> None:
    """Whatever kinds of parameters it has, an undo gets the result and the arguments it names."""
    assert undone(of_two, undo, 1) == seen


@pytest.mark.parametrize(
    ("undo", "seen"),
    [
        (lambda r, a, b, c: (a, b, c), (1, 2, 30)),
        (lambda r, a, b, *rest: (a, b, rest), (1, 2, (4, 5))),
        (lambda r, *rest: rest, (4, 5)),
        (lambda r, *, c, **kw: (c, kw), (30, {"a": 1, "b": 2, "x": 6})),
        (
            lambda r, a, b, *rest, c, **kw: (r, a, b, rest, c, kw),
            ("result", 1, 2, (4, 5), 30, {"x": 6}),
        ),
    ],
)
def test_an_undo_of_a_step_with_every_kind_of_parameter(undo: Any, seen: Any) -> None:
    """`*args` and `**kwargs` of the step reach those of the undo."""
    assert undone(of_all, undo, 1, 2, 4, 5, c=30, x=6) == seen


def test_defaults_of_the_step_are_arguments_too() -> None:
    """An argument that the caller left to its default reaches the undo."""
    assert undone(of_all, lambda r, c, **kw: (c, kw), 1, 2) == (3, {"a": 1, "b": 2})


def test_a_keyword_that_is_called_like_the_result() -> None:
    """An undo with `**kwargs` works whatever its own first parameter is called."""
    assert undone(of_two, lambda a, **kw: (a, kw), 1) == ("result", {"b": 2})


def test_keywords_of_the_step_called_like_its_positional_parameter() -> None:
    """`f(1, a=2)` is a legal call where `a` is positional only; its undo can be called as well."""

    def step(a: int, /, **spread: int) -> None: ...

    assert undone(step, lambda r, a, /, **spread: (a, spread), 1, a=2) == (1, {"a": 2})


@quick
@given(
    args=st.lists(st.integers(), max_size=4),
    spread=st.dictionaries(st.sampled_from("xyz"), st.integers()),
)
def test_everything_passes_through(args: list[int], spread: dict[str, int]) -> None:
    """What a step takes, an undo of the same parameters gets, unchanged."""

    def step(a: int, *rest: int, **spread: int) -> None: ...

    def undo(result: str, a: int, *rest: int, **spread: int) -> Any:
        return result, a, rest, spread

    assert undone(step, undo, 0, *args, **spread) == ("result", 0, tuple(args), spread)


@pytest.mark.parametrize(
    "undo",
    [
        functools.partial(lambda r, client: (r, client), client="c"),
        functools.partial(lambda client, r: (r, client), "c"),
    ],
    ids=["by keyword", "by position"],
)
def test_what_is_bound_by_partial_is_no_parameter(undo: Any) -> None:
    """An undo can be given more than the step has, bound with `functools.partial`."""
    assert undone(of_two, undo, 1) == ("result", "c")


class Inventory:
    def __init__(self, name: str) -> None:
        self.name = name

    def reserve(self, item: str) -> str:
        return item

    def release(self, result: str, item: str) -> Any:
        return self.name, result, item

    def release_all(self, *everything: Any) -> Any:
        return self.name, everything

    def nothing(self) -> None: ...


def test_an_undo_that_is_a_method_gets_the_steps_instance() -> None:
    """`def undo(self, result, ...)` is called on the instance that the step was called on."""
    here = Inventory("here")
    undo = plan(Inventory.reserve, Inventory.release, method=True)
    assert undo.bind({"self": here, "item": "pen"})("r")() == ("here", "r", "pen")


def test_an_undo_that_is_a_method_may_take_anything() -> None:
    """A method with `*args` is an undo of the result."""
    undo = plan(Inventory.reserve, Inventory.release_all, method=True)
    bound = undo.bind({"self": Inventory("x"), "item": "pen"})
    assert bound("r")() == ("x", ("r",))


def test_a_bound_method_as_undo() -> None:
    """A method of some other object is an undo like a function."""

    def step(item: str) -> None: ...

    assert undone(step, Inventory("there").release, "pen") == ("there", "result", "pen")


def test_the_undo_gets_the_arguments_as_they_were() -> None:
    """What the body does to an argument after the call does not reach the undo."""
    order = {"items": ["pen"]}
    bound = plan(of_two, lambda r, a: a).bind({"a": order, "b": 2})
    order["items"].append("ink")
    assert bound("r")() == {"items": ["pen"]}


def test_the_undo_gets_the_result_as_it_was() -> None:
    """What the body does to the result after the step does not reach the undo."""
    result = ["r1"]
    undo = plan(of_two, by_result).bind({"a": 1, "b": 2})(result)
    result.append("r2")
    assert undo() == ["r1"]


def test_each_attempt_of_an_undo_gets_them_anew() -> None:
    """What one attempt does to its arguments does not reach the next."""

    def undo(result: list[int], a: list[int]) -> Any:
        result.append(0)
        a.append(0)
        return result, a

    ready = plan(of_two, undo).bind({"a": [1], "b": 2})([9])
    assert ready() == ready() == ([9, 0], [1, 0])


def test_what_cannot_be_copied_is_passed_itself() -> None:
    """A connection, a lock, a client: the undo gets the very object."""
    lock = threading.Lock()
    ready = plan(of_two, lambda r, a: (r, a)).bind({"a": lock, "b": 2})(lock)
    assert ready()[0] is lock
    assert ready()[1] is lock


class OneWay:
    """Can be pickled, but not read again."""

    def __reduce__(self) -> Any:
        return (_fail, ())


def _fail() -> None:
    raise ValueError("cannot be read")


def test_what_cannot_be_read_again_is_passed_itself() -> None:
    """A value whose pickle does not load is passed as it is."""
    value = OneWay()
    assert Copied(value).get() is value


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_a_copy_is_equal_and_apart(value: Any) -> None:
    """A copy equals its original, and is another object wherever it could be changed."""
    copy = Copied(value).get()
    assert copy == value
    assert type(copy) is type(value)
    if isinstance(value, list | dict):
        assert copy is not value


def test_subclasses_of_plain_types_are_copied_as_they_are() -> None:
    """A subclass of `str` or `int` keeps its class."""
    assert type(Copied(LoudStr("a")).get()) is LoudStr


class LoudStr(str):
    """A text with a class of its own."""


def test_an_undo_by_hand_gets_copies_too() -> None:
    """What is given to `add_compensation` is kept as it was."""
    given_list, given_dict = [1], {"a": [1]}
    ready = bind_by_hand(lambda *args, **kwargs: (args, kwargs), (given_list,), {"k": given_dict})
    given_list.append(2)
    given_dict["a"].append(2)
    assert ready() == (([1],), {"k": {"a": [1]}})


@pytest.mark.parametrize(
    ("undo", "message"),
    [
        (None, "is no function"),
        (3, "is no function"),
        ("release", "is no function"),
        (lambda: None, "must take the step's result first"),
        (lambda *, result: None, "must take the step's result first"),
        (lambda **kw: None, "must take the step's result first"),
        (lambda r, c: None, "takes 'c', which is no parameter of the step"),
        (lambda r, c=1: None, "takes 'c', which is no parameter of the step"),
        (lambda r, *, c: None, "takes 'c', which is no parameter of the step"),
        (by_nothing, "takes 'unknown'.*it has: a, b"),
        (lambda r: (yield), "is a generator"),
        (asynchronously, "is async"),
        (dict.get, "takes 'key'|must take|cannot be read"),
        (type, "cannot be read|takes"),
    ],
)
def test_an_undo_that_does_not_fit_is_refused(undo: Any, message: str) -> None:
    """Whatever is wrong with an undo is told where it is declared, with the step's name."""
    with pytest.raises(StepDefinitionError, match=message) as e:
        plan(of_two, undo)
    assert "'reserve'" in str(e.value)


def test_an_async_generator_is_no_undo() -> None:
    """An async generator, of which a call runs nothing, is refused."""

    async def step() -> None: ...

    async def undo(result: Any) -> Any:
        yield

    with pytest.raises(StepDefinitionError, match="generator"):
        plan(step, undo)


@pytest.mark.parametrize("undo", [Inventory.nothing, lambda: None])
def test_a_method_must_take_the_result_after_self(undo: Any) -> None:
    """An undo of a method that has no place for the result is refused."""
    with pytest.raises(StepDefinitionError, match=r"after self: undo\(self, result"):
        plan(Inventory.reserve, undo, method=True)


def test_the_steps_self_is_no_argument_of_a_method() -> None:
    """In an undo that is a method, `self` stands first and is not to be named again."""
    with pytest.raises(StepDefinitionError, match="'self'"):
        plan(Inventory.reserve, lambda this, result, self: None, method=True)


def test_an_undo_of_varargs_cannot_be_named_by_them() -> None:
    """`*rest` of the step is no argument that has a name."""
    with pytest.raises(StepDefinitionError, match="'rest'"):
        plan(of_all, lambda r, rest: None)


def test_an_async_undo_serves_an_async_step() -> None:
    """An async undo fits an async step, a plain one fits both kinds."""

    async def step(a: int) -> None: ...

    assert plan(step, asynchronously).is_async
    assert not plan(step, by_result).is_async
    assert not plan(of_two, by_result).is_async
