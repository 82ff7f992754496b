"""
The attempts of one step: the retry loop, and errors made fit to be stored.

The loop runs inside one DBOS step. DBOS's own cannot wait without an upper bound of an hour,
knows neither jitter nor `retry_after`, and would try a cancellation again.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ._errors import RetriesExhaustedError, StepFailedError
from ._mode import Mode
from ._policy import RetryPolicy
from .abc import Retried


class Codec(Protocol):
    """How values travel to the database and back."""

    def dumps(self, value: Any) -> Any:
        """Encode."""

    def loads(self, data: Any) -> Any:
        """Decode."""


def attempts_of(recorded: Any) -> int:
    """How many attempts a recorded result or error took."""
    if isinstance(recorded, Retried | RetriesExhaustedError):
        return recorded.attempts
    count = getattr(recorded, "saga_attempts", 1)
    return count if isinstance(count, int) else 1


def type_name(error: BaseException) -> str:
    """The qualified name of an error's class; builtins go without their module."""
    cls = type(error)
    module = "" if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}."
    return module + cls.__qualname__


def describe(error: BaseException) -> str:
    """`str(error)`, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose text cannot be had>"


_INTERNAL = ("dbos.", "sagas._", "steps._")
"""Modules whose frames tell a user nothing about an error of their own code."""


def format_traceback(error: BaseException) -> str:
    """The traceback of `error` as Python prints it, without the frames of DBOS and of ours."""
    try:
        if isinstance(error, BaseExceptionGroup):
            return "".join(traceback.format_exception(error))
        return _format_chain(error)
    except Exception:
        return ""


def _format_chain(error: BaseException, most: int = 5) -> str:
    cause = error.__cause__
    before, how = cause, "The above exception was the direct cause of the following exception:"
    if cause is None and not error.__suppress_context__:
        before, how = (
            error.__context__,
            "During handling of the above exception, another exception occurred:",
        )
    frames = (
        place
        for place in traceback.walk_tb(error.__traceback__)
        if not place[0].f_globals.get("__name__", "").startswith(_INTERNAL)
    )
    lines = [
        "Traceback (most recent call last):\n",
        *traceback.StackSummary.extract(frames).format(),
        *traceback.format_exception_only(error),
    ]
    if before is None or most <= 1:
        return "".join(lines)
    return f"{_format_chain(before, most - 1)}\n{how}\n\n{''.join(lines)}"


def as_plain_data(error: BaseException) -> StepFailedError:
    """`error` as one that can be stored."""
    return StepFailedError(type_name(error), describe(error), format_traceback(error))


def storable(error: Exception, codec: Codec) -> Exception:
    """
    `error` itself if it comes back from the database as it went, else its plain data.

    DBOS stores errors without trying them. One that cannot be pickled is not recorded at all,
    and one that cannot be rebuilt comes back as another error: either way a replay would take
    another path than the live run took.
    """
    try:
        copy = codec.loads(codec.dumps(error))
        if type(copy) is type(error) and _same_args(copy.args, error.args):
            return error
    except Exception:
        pass  # whatever went wrong, the plain data can be stored
    return as_plain_data(error)


def _same_args(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    try:
        return len(left) == len(right) and all(map(_same, left, right))
    except Exception:
        return False


def _same(left: Any, right: Any) -> bool:
    if left is right or left == right:
        return True
    if left != left and right != right:
        return True  # not a number
    if isinstance(left, BaseException):
        return type(left) is type(right) and _same_args(left.args, right.args)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and _same_args(tuple(left), tuple(right))
    return type(left) is type(right) and not _compares(left)


def _compares(value: object) -> bool:
    """Whether `==` looks at more than identity."""
    return type(value).__eq__ is not object.__eq__


async def _uncancelled(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """
    One attempt.

    A cancellation that nobody asked this task for is a failure of the body, and so is an exit: a
    step does not end the process.
    """
    try:
        return await attempt()
    except SystemExit as error:
        raise as_plain_data(error) from error
    except asyncio.CancelledError as error:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None  # on a thread of its own: nobody can have cancelled it
        if task is not None and task.cancelling():
            raise
        raise as_plain_data(error) from error


async def run_attempts(
    mode: Mode,
    attempt: Callable[[], Awaitable[Any]],
    *,
    name: str,
    retry: RetryPolicy,
    codec: Codec,
    before: Callable[[], None] = lambda: None,
    failed: Callable[[int, Exception], None] = lambda _count, _error: None,
    pause: Callable[[float], Awaitable[None]] | None = None,
) -> Any:
    """
    The result of the first attempt that succeeds.

    Args:
        mode: Where the caller runs.
        attempt: Makes one attempt.
        name: The step's, for messages.
        retry: How often to try, and when.
        codec: What the error must survive.
        before: Called before each attempt; what it raises ends the loop.
        failed: Called after each attempt that failed, with its number and error.
        pause: Waits so many seconds before the next attempt; default: the mode's own.

    Returns:
        The result; as `Retried` when it took more than one attempt.

    Raises:
        RetriesExhaustedError: No attempt is left.
        StepFailedError: The final error cannot be stored.
        Exception: The final error itself, where no retry was allowed.
    """
    pause = mode.sleep if pause is None else pause
    errors: list[Exception] = []
    count = 0
    while True:
        before()
        count += 1
        try:
            result = await _uncancelled(attempt)
        except Exception as error:
            failed(count, error)
            failure = storable(error, codec)
            final = retry.is_final(error)
            if final or retry.max_attempts == 1:
                if count > 1:
                    failure.__dict__["saga_attempts"] = count
                if failure is error:
                    raise
                raise failure from error
            errors = [*errors[1 - RetriesExhaustedError.KEPT :], failure]
            if retry.is_exhausted(count):
                raise RetriesExhaustedError(name, count, errors) from error
            await pause(retry.delay(count, error, random.random()))
        else:
            return result if count == 1 else Retried(result, count)
