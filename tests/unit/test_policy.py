"""Retry policies and spans of time."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps import NonRetryableError, RetryPolicy, StepDefinitionError
from steps._policy import FOR_EVER, ONE_ATTEMPT, seconds

chances = st.floats(0, 1)
quick = settings(max_examples=50, deadline=None)
spans = st.floats(0, 1e6)


class RetryAfterError(Exception):
    """An error that says when to come back."""

    def __init__(self, retry_after: Any) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class TooManyError(NonRetryableError):
    """Final by its class."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (timedelta(milliseconds=5), 0.005)],
)
def test_seconds_takes_numbers_and_timedeltas(value: Any, expected: float) -> None:
    """A span of time is told in seconds, whichever way it was given."""
    assert seconds(value, "timeout") == expected
    assert type(seconds(value, "timeout")) is float


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        math.nan,
        math.inf,
        -math.inf,
        timedelta(seconds=-1),
        True,
        False,
        None,
        "1",
        b"1",
        Decimal(1),
        1j,
        [1],
        object(),
        pytest.param(10**400, id="huge"),
    ],
)
@pytest.mark.parametrize("zero", [True, False])
def test_seconds_refuses_what_is_no_span_of_time(value: Any, zero: bool) -> None:
    """What is negative, not finite or no number is refused by name, zero allowed or not."""
    with pytest.raises(StepDefinitionError, match="the limit must be"):
        seconds(value, "the limit", zero=zero)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, timedelta(0)])
def test_zero_seconds_only_where_allowed(value: Any) -> None:
    """No time at all is a span only where the caller says so."""
    assert seconds(value, "delay", zero=True) == 0.0
    with pytest.raises(StepDefinitionError, match="more than zero"):
        seconds(value, "timeout")


def test_seconds_raises_the_error_it_is_given() -> None:
    """The caller chooses the class of the refusal."""
    with pytest.raises(LookupError, match="timeout"):
        seconds(-1, "timeout", error=LookupError)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, math.nan, True, "3", [3], timedelta(1)])
def test_max_attempts_is_a_whole_number_or_none(value: Any) -> None:
    """A number of attempts that makes no sense is refused when the policy is made."""
    with pytest.raises(StepDefinitionError, match="max_attempts"):
        RetryPolicy(max_attempts=value)


@pytest.mark.parametrize("field", ["first_delay", "max_delay"])
@pytest.mark.parametrize(
    "value",
    [
        -1,
        math.nan,
        math.inf,
        True,
        "1",
        None,
        timedelta(seconds=-1),
        pytest.param(10**400, id="huge"),
    ],
)
def test_delays_are_validated(field: str, value: Any) -> None:
    """A delay that makes no sense is refused when the policy is made, and named."""
    with pytest.raises(StepDefinitionError, match=field):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize("value", [0, 0.99, -2, math.nan, math.inf, True, "2", None, Decimal(2)])
def test_backoff_is_validated(value: Any) -> None:
    """A factor below 1, or none at all, is refused when the policy is made."""
    with pytest.raises(StepDefinitionError, match="backoff"):
        RetryPolicy(backoff=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0", None])
def test_jitter_is_validated(value: Any) -> None:
    """A jitter outside 0 to 1 is refused when the policy is made."""
    with pytest.raises(StepDefinitionError, match="jitter"):
        RetryPolicy(jitter=value)


@pytest.mark.parametrize("field", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(
    "value", [ValueError("x"), (ValueError, 3), "ValueError", int, BaseException, None, [None]]
)
def test_error_filters_take_exception_classes(field: str, value: Any) -> None:
    """Only subclasses of Exception say after which errors to try again."""
    with pytest.raises(StepDefinitionError, match=field):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize(
    "given_types", [OSError, (OSError,), [OSError], {OSError}, iter([OSError])]
)
def test_error_filters_take_one_or_several(given_types: Any) -> None:
    """One class and any collection of classes mean the same."""
    assert RetryPolicy(retry_on=given_types).retry_on == (OSError,)


def test_options_are_by_keyword_only() -> None:
    """A bare number cannot be taken for another option."""
    with pytest.raises(TypeError):
        RetryPolicy(3)  # type: ignore[misc]
    with pytest.raises(TypeError):
        RetryPolicy(attempts=3)  # type: ignore[call-arg]


def test_a_policy_is_frozen_and_comparable() -> None:
    """A policy that several steps share cannot be changed by one of them."""
    policy = RetryPolicy(first_delay=timedelta(seconds=2))
    assert policy == RetryPolicy(first_delay=2)
    assert hash(policy) == hash(RetryPolicy(first_delay=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.max_attempts = 7  # type: ignore[misc]


def test_the_defaults_of_steps_and_undos() -> None:
    """A step is tried once; an undo for ever, 1 s later at first, doubling, at most 5 minutes."""
    assert ONE_ATTEMPT.max_attempts == 1
    assert FOR_EVER.max_attempts is None
    waits = [FOR_EVER.delay(n, ValueError(), chance=0) for n in (1, 2, 3, 9, 10, 1000)]
    assert waits == [1, 2, 4, 256, 300, 300]


def test_delays_grow_geometrically_up_to_the_cap() -> None:
    """Each wait is the one before times the factor, and never above the cap."""
    policy = RetryPolicy(first_delay=0.5, backoff=3, max_delay=10, max_attempts=None)
    waits = [policy.delay(n, ValueError(), chance=0) for n in range(1, 6)]
    assert waits == [0.5, 1.5, 4.5, 10, 10]


@quick
@given(first=spans, backoff=st.floats(1, 1e9), cap=spans, n=st.integers(1, 10**6), chance=chances)
def test_a_wait_is_between_zero_and_the_cap(
    first: float, backoff: float, cap: float, n: int, chance: float
) -> None:
    """No policy, count of attempts or chance gives a wait that is negative or above the cap."""
    policy = RetryPolicy(first_delay=first, backoff=backoff, max_delay=cap, max_attempts=None)
    assert 0 <= policy.delay(n, ValueError(), chance) <= cap


@quick
@given(n=st.integers(1, 200), chance=chances, jitter=st.floats(0, 1))
def test_jitter_shortens_by_no_more_than_its_part(n: int, chance: float, jitter: float) -> None:
    """Chance takes off at most the part of the wait that `jitter` names, and adds nothing."""
    policy = RetryPolicy(jitter=jitter, max_attempts=None)
    full = policy.delay(n, ValueError(), 0)
    wait = policy.delay(n, ValueError(), chance)
    assert full * (1 - jitter) <= wait <= full
    assert math.isclose(policy.delay(n, ValueError(), 1), full * (1 - jitter))


@quick
@given(n=st.integers(1, 500), chance=chances)
def test_waits_never_shrink(n: int, chance: float) -> None:
    """At equal chance a later wait is at least as long as an earlier one."""
    policy = RetryPolicy(max_attempts=None, backoff=1.5)
    assert policy.delay(n, ValueError(), chance) <= policy.delay(n + 1, ValueError(), chance)


@pytest.mark.parametrize("backoff", [2, 2.0, 1e300])
@pytest.mark.parametrize("attempts", [1025, 5000, 100_000])
def test_the_power_may_overflow(backoff: float, attempts: int) -> None:
    """After very many attempts the wait is the cap, not an error."""
    policy = RetryPolicy(max_attempts=None, backoff=backoff, jitter=0)
    assert policy.delay(attempts, ValueError(), 0) == 300


def test_no_delay_stays_no_delay() -> None:
    """A first delay of zero is zero however many attempts there were."""
    policy = RetryPolicy(max_attempts=None, first_delay=0)
    assert [policy.delay(n, ValueError(), 0) for n in (1, 1000, 1100, 5000)] == [0, 0, 0, 0]


@pytest.mark.parametrize(("asked", "wait"), [(7, 7.0), (0, 0.0), (timedelta(minutes=20), 1200.0)])
def test_an_error_may_ask_for_the_next_wait(asked: Any, wait: float) -> None:
    """`retry_after` sets the next wait itself: no cap, no jitter."""
    assert RetryPolicy(max_delay=10).delay(1, RetryAfterError(asked), 0.9) == wait


@pytest.mark.parametrize(
    "asked",
    [
        None,
        -1,
        math.nan,
        math.inf,
        True,
        "Wed, 21 Oct 2015 07:28:00 GMT",
        object(),
        pytest.param(10**400, id="huge"),
    ],
)
def test_a_senseless_request_for_a_wait_is_ignored(asked: Any) -> None:
    """A `retry_after` that is no span of time leaves the policy's own wait."""
    assert RetryPolicy(jitter=0).delay(2, RetryAfterError(asked), 0) == 2.0


def test_errors_are_final_by_class() -> None:
    """`give_up_on` beats `retry_on`, and `NonRetryableError` beats everything."""
    policy = RetryPolicy(retry_on=OSError, give_up_on=(FileNotFoundError,))
    assert not policy.is_final(ConnectionError())
    assert policy.is_final(FileNotFoundError())
    assert policy.is_final(ValueError())
    everything = RetryPolicy(retry_on=Exception)
    assert everything.is_final(NonRetryableError())
    assert everything.is_final(TooManyError())
    assert not everything.is_final(ValueError())


@quick
@given(limit=st.integers(1, 50), made=st.integers(0, 100))
def test_attempts_run_out_at_the_limit(limit: int, made: int) -> None:
    """Attempts are exhausted when as many were made as are allowed, and not before."""
    assert RetryPolicy(max_attempts=limit).is_exhausted(made) == (made >= limit)
    assert not RetryPolicy(max_attempts=None).is_exhausted(made)
