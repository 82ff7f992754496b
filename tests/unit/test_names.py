"""Names of steps and sagas: one name, one definition."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from steps._names import Names, Origin, check_name


class ClashError(Exception):
    """What the registry under test raises."""


def one() -> None: ...


def two() -> None: ...


def made() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


def typed_at_a_prompt(source: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<stdin>", "exec"), namespace)
    return namespace["cell"]  # type: ignore[no-any-return]


@pytest.fixture
def names() -> Names:
    return Names("thing", ClashError)


def test_a_name_belongs_to_one_function(names: Names) -> None:
    """A second function of the same name is refused; the message gives both places."""
    names.claim("a", one, given=False)
    with pytest.raises(ClashError, match="'a'") as caught:
        names.claim("a", two, given=False)
    for fn in (one, two):
        assert f"{fn.__code__.co_filename}:{fn.__code__.co_firstlineno}" in str(caught.value)


def test_two_names_do_not_meet(names: Names) -> None:
    """Functions of different names do not disturb each other."""
    names.claim("a", one, given=False)
    names.claim("b", two, given=False)
    with pytest.raises(ClashError):
        names.claim("b", one, given=False)


@pytest.mark.parametrize("per_module", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_functions_of_two_modules(per_module: bool, given: bool) -> None:
    """Where it is allowed, each module may have a function of a name, unless it was chosen."""
    names = Names("thing", ClashError, per_module=per_module)
    names.claim("load", json.load, given=given)
    if per_module and not given:
        names.claim("load", tomllib.load, given=given)
    else:
        with pytest.raises(ClashError):
            names.claim("load", tomllib.load, given=given)


def test_the_same_lines_may_run_again(names: Names) -> None:
    """A factory that defines its function twice, or a reload, is no second definition."""
    names.claim("inner", made(), given=False)
    names.claim("inner", made(), given=False)
    with pytest.raises(ClashError):
        names.claim("inner", one, given=False)


def test_a_cell_may_be_run_again(names: Names) -> None:
    """At a prompt a changed function replaces the one of the same name."""
    names.claim("cell", typed_at_a_prompt("def cell(): return 1"), given=False)
    names.claim("cell", typed_at_a_prompt("\n\ndef cell(): return 2"), given=False)
    with pytest.raises(ClashError):
        names.claim("cell", one, given=False)


def test_the_origin_is_that_of_the_wrapped_function() -> None:
    """A decorator between does not hide where a function was written."""
    assert Origin.of(wrapped(one)) == Origin.of(one)
    assert Origin.of(wrapped(one)) != Origin.of(wrapped(two))


def test_an_origin_of_something_without_code() -> None:
    """A callable without source has an origin all the same."""
    assert Origin.of(print).file == ""
    assert Origin.of(functools.partial(one)).line == 0


@pytest.mark.parametrize(
    "name", ["a", "Ordnung: schön", "a.b.<locals>.c", "x" * 200, "注文", "a:b#2"]
)
def test_printable_text_is_a_name(name: str) -> None:
    """Any printable text of up to 200 characters can be a name."""
    assert check_name(name, "The name", ClashError) == name


@pytest.mark.parametrize(
    "name", ["", " ", "\t", "a\nb", "a\x00b", "\ud800", "x" * 201, None, 3, b"a", ["a"]]
)
def test_anything_else_is_no_name(name: Any) -> None:
    """What is empty, unprintable, too long or no text is refused with what it was."""
    with pytest.raises(ClashError, match="The name must be printable text"):
        check_name(name, "The name", ClashError)
