"""
The errors a step raises.

    StepError
      StepDefinitionError     the decorated function or its options are wrong (at import)
      StepTimeoutError        an attempt, or a wait, took longer than its limit
      NonRetryableError       raised by a step: do not try again
      OutcomeUnknownError     raised by a step: it may or may not have taken effect
      RetriesExhaustedError   every allowed attempt failed (.errors)
      StepFailedError         a failure as plain data: a participant's, or one that cannot be stored
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Any


class PlainDataError(Exception):
    """
    An error whose facts are plain attributes and survive being pickled.

    DBOS stores errors by pickling them. Python's default rebuilds an exception by calling
    its class with `args`, which fails for keyword-only constructors; this one restores
    `args` and `__dict__` without calling `__init__`. `__cause__` is lost by any pickling.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class StepError(PlainDataError):
    """Base of every error of this package."""


class StepDefinitionError(StepError):
    """The code of a step is wrong. Raised where the decorator stands, never at run time."""


class StepTimeoutError(StepError):
    """
    An attempt took longer than its limit.

    Attributes:
        name: What ran out of time: a step, or `undo:<id>:<step>`.
        timeout: The limit, in seconds.
    """

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(f"{name!r} did not end within {timeout:g} s.")
        self.name = name
        self.timeout = timeout


class NonRetryableError(StepError):
    """Raise this (or a subclass) in a step or an undo to end its retries at once."""


class OutcomeUnknownError(StepError):
    """
    Raise this in a step that cannot tell whether it took effect.

    The saga is parked rather than unwound, because neither undoing nor skipping the step
    would be right.
    """


class RetriesExhaustedError(StepError):
    """
    Every attempt that the retry policy allows has failed.

    Attributes:
        name: The step, or `undo:<id>:<step>`.
        attempts: How many attempts were made.
        errors: The error of each attempt, oldest first. At most the last 20 are kept.
    """

    KEPT = 20

    def __init__(self, name: str, attempts: int, errors: Sequence[Exception]) -> None:
        last = errors[-1]
        super().__init__(
            f"{name!r} failed {attempts} times; the last error was {type(last).__name__}: {last}"
        )
        self.name = name
        self.attempts = attempts
        self.errors: tuple[Exception, ...] = tuple(errors)


class StepFailedError(StepError):
    """
    A failure told in plain data, because the error itself cannot travel.

    It stands for an error that does not survive pickling, or that another process raised.

    Attributes:
        error_type: Qualified name of the original error's class.
        message: Its text.
        traceback: Its formatted traceback, or an empty string.
    """

    def __init__(self, error_type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
