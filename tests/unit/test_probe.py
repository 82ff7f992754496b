"""What a probe must be: a function that can be called in every way in which its step can."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps import StepDefinitionError
from steps._probe import Probe, plan_probe

quick = settings(max_examples=50, deadline=None)


def plan(step: Callable[..., Any], probe: Any, **options: Any) -> Probe:
    options = {"step_is_async": inspect.iscoroutinefunction(step), "method": False, **options}
    return plan_probe(probe, inspect.signature(step), "charge", **options)


def of_none() -> None: ...


def of_two(a: int, b: int = 2) -> None: ...


def of_two_required(a: int, b: int) -> None: ...


def of_keyword(a: int, *, k: int = 3) -> None: ...


def of_positional(a: int, /, b: int) -> None: ...


def of_rest(a: int, *rest: int) -> None: ...


def of_spread(a: int, **spread: int) -> None: ...


def of_all(a: int, /, b: int, *rest: int, c: int = 3, **spread: int) -> None: ...


async def of_two_async(a: int, b: int = 2) -> None: ...


STEPS = [
    of_none,
    of_two,
    of_two_required,
    of_keyword,
    of_positional,
    of_rest,
    of_spread,
    of_all,
    of_two_async,
]


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_the_parameters_of_the_step_fit(step: Callable[..., Any]) -> None:
    """A probe with the very parameters of its step fits, whatever kinds they are of."""
    assert plan(step, step).fn is step


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_a_probe_may_take_everything(step: Callable[..., Any]) -> None:
    """`*args, **kwargs` fits every step."""

    def everything(*args: Any, **kwargs: Any) -> None: ...

    assert plan(step, everything) == Probe(everything, False)


@pytest.mark.parametrize(
    ("step", "probe"),
    [
        (of_two, lambda a, b=2, *rest: None),
        (of_two, lambda a, b=2, *rest, **spread: None),
        (of_two, lambda a, *rest, **spread: None),
        (of_two_required, lambda a, b=7: None),
        (of_positional, lambda x, /, b: None),
        (of_positional, lambda a, b: None),
        (of_keyword, lambda a, **spread: None),
        (of_keyword, lambda a, k=3: None),
        (of_none, lambda *everything: None),
    ],
)
def test_a_probe_may_take_more_than_it_must(step: Any, probe: Any) -> None:
    """What counts is that every call of the step is one of the probe, for the same parameters."""
    assert plan(step, probe).fn is probe


@pytest.mark.parametrize(
    ("step", "probe", "words"),
    [
        (of_two, lambda: None, "cannot be called as the step can: (too many|.*'a')"),
        (of_two, lambda a: None, "cannot be called as the step can"),
        (of_two, lambda a, b: None, "cannot be called as the step can: missing.*'b'"),
        (of_two_required, lambda b, a: None, "takes as 'b' what the step takes as 'a'"),
        (of_two_required, lambda a, c: None, "takes as 'c' what the step takes as 'b'"),
        (of_two_required, lambda a, b, c: None, "cannot be called.*missing.*'c'"),
        (of_two_required, lambda a, b, c=1: None, "takes 'c', which is no parameter"),
        (of_two_required, lambda a, b, *, c=1: None, "takes 'c', which is no parameter"),
        (of_two_required, lambda a, *, b: None, "cannot be called"),
        (of_two_required, lambda a, b, /: None, "cannot be called"),
        (of_two_required, lambda a, *rest: None, "cannot be called.*'b'"),
        (of_two_required, lambda a, **spread: None, "cannot be called"),
        (of_two, lambda a, b=9: None, "has another default for 'b' than the step"),
        (of_two, lambda a, b=2.0: None, "has another default for 'b' than the step"),
        (of_two, lambda a, b=None: None, "has another default for 'b' than the step"),
        (of_keyword, lambda a: None, "cannot be called"),
        (of_keyword, lambda a, *, k: None, "cannot be called"),
        (of_keyword, lambda a, *, k=4: None, "has another default for 'k'"),
        (of_keyword, lambda k, a: None, "cannot be called|takes as"),
        (of_rest, lambda a: None, "cannot be called as the step can: (too many|.*'a')"),
        (of_rest, lambda a, b=0: None, "takes as 'b'|no parameter"),
        (of_rest, lambda a, b=0, *rest: None, "takes as 'b'|no parameter"),
        (of_spread, lambda a: None, "cannot be called.*any other keyword"),
        (of_spread, lambda a, k=1: None, "no parameter|cannot be called"),
        (of_none, lambda a: None, "cannot be called"),
        (of_none, lambda a=1: None, "takes 'a', which is no parameter"),
    ],
)
def test_a_probe_that_cannot_be_called_like_the_step(step: Any, probe: Any, words: str) -> None:
    """A call of the step that would be none of the probe, or another one, is found at once."""
    with pytest.raises(StepDefinitionError, match=words) as e:
        plan(step, probe)
    assert "'charge'" in str(e.value)
    assert "*args and **kwargs" in str(e.value)


def test_the_message_shows_the_parameters_of_the_step() -> None:
    """What to write can be copied from the error."""
    with pytest.raises(StepDefinitionError, match=r"the step's parameters, \(a, b=2\), or"):
        plan(of_two, lambda a: None)


PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY]),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda p: p[0],
)


def _function(parameters: Any) -> Callable[..., Any]:
    """A function of these parameters that returns its arguments by name."""
    keyword = [p for p in parameters if p[1] is inspect.Parameter.KEYWORD_ONLY]
    plain = sorted((p for p in parameters if p not in keyword), key=lambda p: p[2])
    text = [n + ("=None" if d else "") for n, _, d in plain]
    if keyword:
        text += ["*", *(n + ("=None" if d else "") for n, _, d in keyword)]
    made: Callable[..., Any] = eval(f"lambda {', '.join(text)}: locals()")
    return made


@quick
@given(PARAMETERS, PARAMETERS, st.data())
def test_what_is_accepted_can_be_called(step: Any, probe: Any, data: st.DataObject) -> None:
    """Whatever call of a step is made, a probe that was accepted takes it for the same one."""
    of_step, of_probe = _function(step), _function(probe)
    try:
        plan(of_step, of_probe)
    except StepDefinitionError:
        return
    signature = inspect.signature(of_step)
    args: list[str] = []
    kwargs: dict[str, str] = {}
    by_position = True
    for name, parameter in signature.parameters.items():
        if parameter.default is None and data.draw(st.booleans()):
            by_position = False
        elif (
            by_position
            and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            and data.draw(st.booleans())
        ):
            args.append(name)
        else:
            by_position = False
            kwargs[name] = name
    assert of_probe(*args, **kwargs) == of_step(*args, **kwargs)


@pytest.mark.parametrize(
    "probe",
    [
        functools.partial(lambda client, a, b=2: client, "c"),
        functools.partial(lambda a, b=2, *, client: client, client="c"),
    ],
    ids=["by position", "by keyword"],
)
def test_what_is_bound_by_partial_is_no_parameter(probe: Any) -> None:
    """A probe can be given more than the step has, bound with `functools.partial`."""
    assert plan(of_two, probe).fn(1) == "c"


class Shop:
    def charge(self, order: int) -> Any: ...

    def find(self, order: int) -> Any:
        return order

    def find_other(self) -> Any: ...

    @classmethod
    def find_for_class(cls, order: int) -> Any: ...

    async def find_async(self, order: int) -> Any: ...

    def __call__(self, order: int) -> Any: ...


def test_a_method_gets_what_the_steps_method_gets() -> None:
    """The probe of a method is called with the instance; what it calls it is its own affair."""
    assert plan(Shop.charge, Shop.find, method=True).fn is Shop.find
    plan(Shop.charge, lambda shop, order: None, method=True)
    with pytest.raises(StepDefinitionError, match="cannot be called"):
        plan(Shop.charge, Shop.find_other, method=True)
    with pytest.raises(StepDefinitionError, match="cannot be called"):
        plan(Shop.charge, lambda order: None, method=True)


def test_only_a_method_has_a_first_parameter_of_any_name() -> None:
    """In a function that is no method the first parameter is one like the others."""
    with pytest.raises(StepDefinitionError, match="takes as 'shop' what the step takes as 'a'"):
        plan(of_two, lambda shop, b=2: None)


def test_objects_and_bound_methods_are_probes() -> None:
    """Whatever can be called is a probe."""

    def step(order: int) -> None: ...

    assert plan(step, Shop().find).fn(3) == 3
    plan(step, Shop())


def test_what_is_async_goes_with_async_steps() -> None:
    """A plain probe fits both kinds of step, an async one async steps only."""

    async def find(a: int, b: int = 2) -> None: ...

    assert plan(of_two_async, find).is_async
    assert plan(of_two_async, functools.partial(find)).is_async
    assert not plan(of_two_async, of_two).is_async
    with pytest.raises(StepDefinitionError, match=r"'charge' is a plain function, but its probe"):
        plan(of_two, find)


def generator(a: int, b: int = 2) -> Any:
    yield


async def async_generator(a: int, b: int = 2) -> Any:
    yield


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (None, "is no function: None"),
        (3, "is no function: 3"),
        ("find", "is no function: 'find'"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (functools.partial(generator), "is a generator"),
        (type, "cannot be read|cannot be called"),
        (dict.get, "cannot be read|cannot be called|takes as"),
    ],
)
def test_what_is_no_function_is_no_probe(probe: Any, words: str) -> None:
    """What cannot be called, or would run nothing when called, is refused."""
    with pytest.raises(StepDefinitionError, match=words) as e:
        plan(of_two_async, probe)
    assert "'charge'" in str(e.value)


class Odd:
    """Refuses to be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = None  # type: ignore[assignment]


def test_defaults_that_cannot_be_compared() -> None:
    """Such a default must be the very object."""
    odd = Odd()

    def step(a: Any = odd) -> None: ...
    def same(a: Any = odd) -> None: ...
    def other(a: Any = Odd()) -> None: ...  # noqa: B008

    plan(step, same)
    with pytest.raises(StepDefinitionError, match="another default"):
        plan(step, other)
