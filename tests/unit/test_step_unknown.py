"""`timeout`, `undo_when` and `probe`: from the decorator to what a saga gets to see."""

from __future__ import annotations

import asyncio
import functools
import threading
from datetime import timedelta
from typing import Any

import pytest

from steps import NOT_DONE, NotDone, RetryPolicy, StepDefinitionError, step
from steps._policy import FOR_EVER, UNDO_TIMEOUT
from steps.abc import StepCall
from tests.support.labels import label


def release(result: Any, n: int = 0) -> Any:
    return result, n


def find(n: int) -> int | NotDone:
    return n if n > 0 else NOT_DONE


async def find_async(n: int) -> int | NotDone:
    return n


def test_what_a_call_holds_by_default() -> None:
    """Without these options a call has no limit, no probe, and undoes what completed."""

    @step
    def bare(n: int) -> int:
        return n

    call = bare._call((1,), {})
    assert (call.timeout, call.attempted) == (None, False)
    assert (call.probe, call.probe_is_async) == (None, False)
    assert (call.undo_retry, call.undo_timeout) == (FOR_EVER, UNDO_TIMEOUT)


def test_the_defaults_of_a_call_are_those_of_a_step() -> None:
    """Whoever makes a call by hand need not know these options."""
    call = StepCall("undo:1:charge", lambda: None, str, False, FOR_EVER, None)
    assert (call.timeout, call.attempted, call.probe, call.probe_is_async) == (
        None,
        False,
        None,
        False,
    )
    assert (call.undo_retry, call.undo_timeout) == (FOR_EVER, UNDO_TIMEOUT)


@pytest.mark.parametrize(("given", "seconds"), [(3, 3.0), (0.5, 0.5), (timedelta(minutes=1), 60.0)])
def test_a_timeout_in_seconds(given: Any, seconds: float) -> None:
    """A timeout is a number of seconds or a `timedelta`."""

    @step(timeout=given)
    def limited(n: int) -> int:
        return n

    call = limited._call((1,), {})
    assert call.timeout == seconds
    assert isinstance(call.timeout, float)


@pytest.mark.parametrize(
    "timeout", [0, -1, float("nan"), float("inf"), "5 min", True, timedelta(0), [3]], ids=label
)
def test_a_timeout_that_is_none(timeout: Any) -> None:
    """A timeout that is no positive, finite span of time is refused at the definition."""
    with pytest.raises(StepDefinitionError, match="timeout must be"):

        @step(timeout=timeout)
        def never(n: int) -> int:
            return n


@pytest.mark.parametrize("undo_when", ["always", True, 1, ("completed",)])
def test_an_undo_when_that_is_none(undo_when: Any) -> None:
    """An `undo_when` of another value is refused at the definition."""
    with pytest.raises(StepDefinitionError, match="undo_when of step"):

        @step(undo_when=undo_when)
        def never(n: int) -> int:
            return n


@pytest.mark.parametrize("undo_when", ["completed", "attempted", None])
def test_what_a_call_holds_of_undo_when(undo_when: Any) -> None:
    """Only "attempted" has calls undone that did not complete."""

    @step(undo=release, undo_when=undo_when)
    def charge(n: int) -> int:
        return n

    assert charge._call((1,), {}).attempted is (undo_when == "attempted")


def test_the_undo_of_an_attempted_call_takes_none() -> None:
    """Where there is no result the undo gets None, and the arguments all the same."""

    @step(undo=release, undo_when="attempted", timeout=3)
    def charge(n: int) -> int:
        return n

    call = charge._call((5,), {})
    assert call.undo is not None
    assert call.undo(None).undo() == (None, 5)
    assert call.undo(7).undo() == (7, 5)


def test_a_call_holds_the_probe_with_its_arguments() -> None:
    """The probe gets the very arguments of the call, by position and by keyword as they came."""
    seen: list[Any] = []

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return NOT_DONE

    @step(probe=look)
    def charge(items: list[int], note: str = "") -> int:
        return 1

    items = [1]
    call = charge._call((items,), {"note": "x"})
    assert call.probe is not None
    assert call.probe() is NOT_DONE
    assert seen == [((items,), {"note": "x"})]
    assert seen[0][0][0] is items
    assert not call.probe_is_async


def test_a_call_holds_policy_and_limit_of_the_undo() -> None:
    """The probe is tried as the undo is, never as the step is."""
    patient = RetryPolicy(max_attempts=9)

    @step(probe=find, retry=RetryPolicy(max_attempts=2), undo_retry=patient, undo_timeout=7)
    def charge(n: int) -> int:
        return n

    call = charge._call((1,), {})
    assert (call.undo_retry, call.undo_timeout) == (patient, 7.0)
    assert call.retry.max_attempts == 2


def test_an_async_probe() -> None:
    """An async step can have a probe of either kind."""

    @step(probe=find_async)
    async def charge(n: int) -> int:
        return n

    @step(probe=find)
    async def charge_too(n: int) -> int:
        return n

    call, other = charge._call((4,), {}), charge_too._call((4,), {})
    assert call.probe is not None
    assert call.probe_is_async
    assert asyncio.run(call.probe()) == 4
    assert not other.probe_is_async


def test_a_step_can_be_the_probe_of_another() -> None:
    """A step that is given as a probe is called as the plain function."""

    @step(name="unknown.look")
    def look(n: int) -> int | NotDone:
        return n + 1

    @step(probe=look)
    def charge(n: int) -> int:
        return n

    call = charge._call((1,), {})
    assert isinstance(call.probe, functools.partial)
    assert call.probe.func is look.__wrapped__  # type: ignore[attr-defined]
    assert call.probe() == 2


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def find_given(self, n: int) -> Any:
        return self.name, n

    @step(name="unknown.given", probe=find_given)
    def given(self, n: int) -> Any: ...

    @step(name="unknown.below", timeout=3)
    def below(self, n: int) -> Any: ...

    @below.probe
    def find_below(self, n: int) -> Any:
        return self.name, n

    @below.undo
    def undo_below(self, result: Any, n: int) -> Any:
        return self.name, result, n

    @staticmethod
    def find_static(n: int) -> Any:
        return "static", n

    @step(name="unknown.static", probe=find_static)
    @staticmethod
    def static(n: int) -> Any: ...

    @step(name="unknown.class")
    @classmethod
    def of_class(cls, n: int) -> Any: ...

    @of_class.probe
    @classmethod
    def find_of_class(cls, n: int) -> Any:
        return cls, n


def test_the_probes_of_methods() -> None:
    """A probe gets the instance, or the class, on which the step was called."""
    shop = Shop("a")
    probes = [
        (Shop.given, (shop, 1), ("a", 1)),
        (Shop.below, (shop, 2), ("a", 2)),
        (Shop.static, (3,), ("static", 3)),
        (Shop.__dict__["of_class"], (Shop, 4), (Shop, 4)),
    ]
    for called, args, seen in probes:
        call = called._call(args, {})
        assert call.probe is not None
        assert call.probe() == seen
    assert shop.find_below(5) == ("a", 5)


def test_a_probe_declared_below_stays_a_function() -> None:
    """`@step.probe` returns the function as it was."""

    @step
    def charge(n: int) -> int:
        return n

    assert charge.probe(find) is find
    call = charge._call((-1,), {})
    assert call.probe is not None
    assert call.probe() is NOT_DONE


def test_a_step_has_one_probe() -> None:
    """A second probe of a step is refused, however the first was given."""

    @step(probe=find)
    def charge(n: int) -> int:
        return n

    with pytest.raises(StepDefinitionError, match="has a probe already"):
        charge.probe(find)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("find", "is no function"),
        (lambda: None, r"cannot be called as the step can.*parameters, \(n\)"),
        (find_async, "is async"),
    ],
)
def test_a_probe_that_does_not_fit(probe: Any, words: str) -> None:
    """A probe that could not be called is refused at import, in both forms."""
    with pytest.raises(StepDefinitionError, match=words):

        @step(probe=probe)
        def charge(n: int) -> int:
            return n

    @step
    def charge_below(n: int) -> int:
        return n

    with pytest.raises(StepDefinitionError, match=words):
        charge_below.probe(probe)
    assert charge_below._call((1,), {}).probe is None


def test_a_timeout_and_an_undo_at_the_decorator() -> None:
    """A step with both must say what a call that ran out of time means."""
    with pytest.raises(StepDefinitionError, match="has a timeout and an undo"):

        @step(timeout=3, undo=release)
        def charge(n: int) -> int:
            return n


def test_a_timeout_and_an_undo_declared_below() -> None:
    """Where the undo comes later, it is asked there, and is not taken."""

    @step(timeout=3)
    def charge(n: int) -> int:
        return n

    with pytest.raises(StepDefinitionError, match="has a timeout and an undo"):
        charge.undo(release)
    assert charge._call((1,), {}).undo is None
    charge.probe(find)
    charge.undo(release)
    assert charge._call((1,), {}).undo is not None


@pytest.mark.parametrize("choice", [{"undo_when": "completed"}, {"undo_when": "attempted"}])
def test_whoever_chose_may_declare_the_undo_below(choice: dict[str, Any]) -> None:
    """A choice at the decorator serves an undo that is declared later."""

    @step(timeout=3, **choice)
    def charge(n: int) -> int:
        return n

    assert charge.undo(release) is release
    assert charge._call((1,), {}).undo is not None


@pytest.mark.parametrize("undo_when", ["completed", "attempted"])
def test_a_probe_or_undo_when(undo_when: Any) -> None:
    """Both at once are refused, in both forms."""
    with pytest.raises(StepDefinitionError, match="Give one of them"):

        @step(probe=find, undo_when=undo_when)  # type: ignore[call-overload, untyped-decorator]
        def charge(n: int) -> int:
            return n

    @step(undo_when=undo_when)
    def charge_below(n: int) -> int:
        return n

    with pytest.raises(StepDefinitionError, match="Give one of them"):
        charge_below.probe(find)


def test_a_plain_call_has_no_limit() -> None:
    """Outside a workflow a step with a timeout is the plain function, on the caller's thread."""

    @step(timeout=1e-9, undo=release, undo_when="completed")
    def where(n: int) -> int:
        return threading.get_ident()

    @step(timeout=1e-9)
    async def where_async(n: int) -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    assert where(1) == threading.get_ident()
    assert asyncio.run(where_async(1)) == threading.get_ident()
