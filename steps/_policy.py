"""Retry policies and spans of time: frozen, validated when they are made, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ._errors import NonRetryableError, StepDefinitionError

Seconds = float | timedelta
"""A span of time: seconds as a number, or a `timedelta`."""


def seconds(
    value: Seconds,
    what: str,
    *,
    zero: bool = False,
    error: type[Exception] = StepDefinitionError,
) -> float:
    """
    `value` in seconds.

    Raises:
        StepDefinitionError: (or `error`) It is no finite, positive span of time. With `zero`,
            nothing is allowed too.
    """
    span: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(span, bool) or not isinstance(span, int | float):
        raise error(f"{what} must be seconds as a number or a timedelta, not {value!r}.")
    try:
        number = float(span)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "zero or more" if zero else "more than zero"
        raise error(f"{what} must be a finite number of seconds, {least}, not {value!r}.")
    return number


def _error_types(value: Any, what: str) -> tuple[type[Exception], ...]:
    types = tuple(value) if isinstance(value, Iterable) else (value,)
    for item in types:
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise StepDefinitionError(
                f"{what} takes subclasses of Exception, alone or in a tuple, not {item!r}."
            )
    return types


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How often, and how soon, to try again.

    The waits grow geometrically from `first_delay` by the factor `backoff` up to `max_delay`,
    each shortened by a random part of up to `jitter`, so that many sagas that failed together
    do not come back together. An error with a `retry_after` attribute (seconds, or a
    `timedelta`) sets the next wait itself.

    Args:
        max_attempts: Attempts in all, the first included; None: for ever.
        first_delay: Seconds before the second attempt.
        backoff: What each wait is multiplied by to give the next one; 1 or more.
        max_delay: The longest wait, in seconds.
        retry_on: Errors to try again after; others are final.
        give_up_on: Errors that are final although `retry_on` names them. `NonRetryableError`
            always is.
        jitter: The part of each wait that chance may take off, 0 to 1.

    Durability:
        The attempts of one step are one checkpoint. After a crash the count starts anew,
        under the same idempotency key.

    Raises:
        StepDefinitionError: A value makes no sense.
    """

    max_attempts: int | None = 3
    first_delay: Seconds = 1.0
    backoff: float = 2.0
    max_delay: Seconds = 300.0
    retry_on: type[Exception] | tuple[type[Exception], ...] = (Exception,)
    give_up_on: type[Exception] | tuple[type[Exception], ...] = ()
    jitter: float = 0.25

    def __post_init__(self) -> None:
        attempts = self.max_attempts
        if attempts is not None and (
            isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1
        ):
            raise StepDefinitionError(
                f"max_attempts must be a whole number of 1 or more, or None for no limit, "
                f"not {attempts!r}."
            )
        for name, low, high in (("backoff", 1.0, math.inf), ("jitter", 0.0, 1.0)):
            value: Any = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                span = f"{low:g} or more" if high == math.inf else f"between {low:g} and {high:g}"
                raise StepDefinitionError(f"{name} must be a number, {span}, not {value!r}.")
        first = seconds(self.first_delay, "first_delay", zero=True)
        longest = seconds(self.max_delay, "max_delay", zero=True)
        object.__setattr__(self, "first_delay", first)
        object.__setattr__(self, "max_delay", longest)
        object.__setattr__(self, "retry_on", _error_types(self.retry_on, "retry_on"))
        object.__setattr__(self, "give_up_on", _error_types(self.give_up_on, "give_up_on"))

    def is_final(self, error: Exception) -> bool:
        """Whether `error` ends the retries whatever the count."""
        gives_up = isinstance(error, (NonRetryableError, self.give_up_on))
        return gives_up or not isinstance(error, self.retry_on)

    def is_exhausted(self, attempts: int) -> bool:
        """Whether no attempt is left after `attempts` of them."""
        return self.max_attempts is not None and attempts >= self.max_attempts

    def delay(self, attempts: int, error: Exception, chance: float) -> float:
        """
        Seconds to wait after `attempts` failed attempts.

        Args:
            attempts: Failed attempts so far, 1 or more.
            error: The last error; its `retry_after` wins where it makes sense.
            chance: A random number, 0 to 1.
        """
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            try:
                return seconds(asked, "retry_after", zero=True)
            except StepDefinitionError:
                pass  # a header's date, say: the policy's own wait is the safe answer
        first, longest = (
            seconds(self.first_delay, "", zero=True),
            seconds(self.max_delay, "", zero=True),
        )
        try:
            wait = first and min(first * self.backoff ** (attempts - 1), longest)
        except OverflowError:
            wait = longest
        return wait * (1.0 - self.jitter * chance)


ONE_ATTEMPT = RetryPolicy(max_attempts=1)
"""What a step does unless it is told otherwise."""

FOR_EVER = RetryPolicy(max_attempts=None)
"""What an undo does unless it is told otherwise."""

UNDO_TIMEOUT = 300.0
"""Seconds that one attempt of an undo may take unless it is told otherwise."""


def policy_or(
    policy: Any,
    what: str,
    default: RetryPolicy,
    *,
    error: type[Exception] = StepDefinitionError,
) -> RetryPolicy:
    """
    `policy`, or `default` where none was given.

    Raises:
        StepDefinitionError: (or `error`) It is something else.
    """
    if policy is None:
        return default
    if not isinstance(policy, RetryPolicy):
        raise error(f"{what} takes a RetryPolicy, not {policy!r}.")
    return policy
