"""The attempts of one step: the retry loop, and errors made fit to be stored."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steps import NonRetryableError, RetriesExhaustedError, RetryPolicy, StepFailedError
from steps._attempts import (
    as_plain_data,
    attempts_of,
    describe,
    format_traceback,
    run_attempts,
    storable,
    type_name,
)
from steps._dbos import PICKLE
from steps._mode import BLOCKING, ON_LOOP, Blocking, ShuttingDown, alarm, drive
from steps.abc import Retried
from tests.support.labels import label

AT_ONCE = RetryPolicy(max_attempts=5, first_delay=0)


class KeywordOnlyError(Exception):
    """Pickle calls its class with `args` alone, so it cannot be rebuilt."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class ChangedByPickleError(Exception):
    """Its text wraps what it is given, so each rebuilding wraps it once more."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"failed: {reason}")


class OtherTypeError(Exception):
    """It comes back from a pickle as another class."""

    def __reduce__(self) -> Any:
        return ValueError, self.args


class WithFactsError(Exception):
    """Its facts are attributes, which pickle keeps."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class MuteError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Opaque:
    """Compares by identity, as most objects do."""


class Recording(Blocking):
    """Waits in no time, and keeps the waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


class Body:
    """Raises the given errors one after the other, then returns."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def attempts(
    body: Callable[[], Awaitable[Any]], retry: RetryPolicy = AT_ONCE, **options: Any
) -> Any:
    mode = options.pop("mode", BLOCKING)
    return drive(run_attempts(mode, body, name="charge", retry=retry, codec=PICKLE, **options))


def test_the_first_result_is_returned_as_it_is() -> None:
    """A step that succeeds at once is recorded without a wrapping."""
    assert attempts(Body()) == "done"


def test_a_late_success_tells_how_many_attempts_it_took() -> None:
    """A result that took several attempts is recorded with their number."""
    body = Body(ValueError("1"), OSError("2"))
    assert attempts(body) == Retried("done", 3)
    assert body.calls == 3


def test_all_attempts_failed() -> None:
    """When no attempt is left the error tells the step, the number and every error, in order."""
    body = Body(*(ValueError(n) for n in range(9)))
    with pytest.raises(RetriesExhaustedError, match=r"failed 5 times.*ValueError: 4") as e:
        attempts(body)
    assert body.calls == 5
    assert (e.value.name, e.value.attempts) == ("charge", 5)
    assert [error.args for error in e.value.errors] == [(n,) for n in range(5)]
    assert isinstance(e.value.__cause__, ValueError)


def test_only_the_last_errors_are_kept() -> None:
    """Of very many errors the newest twenty are kept, oldest first."""
    with pytest.raises(RetriesExhaustedError) as e:
        attempts(
            Body(*(ValueError(n) for n in range(50))), RetryPolicy(max_attempts=50, first_delay=0)
        )
    assert e.value.attempts == 50
    assert [error.args[0] for error in e.value.errors] == list(range(30, 50))


def test_one_attempt_raises_the_error_itself() -> None:
    """Without a retry policy the body's own error is what is raised."""
    error = LookupError("gone")
    with pytest.raises(LookupError) as e:
        attempts(Body(error), RetryPolicy(max_attempts=1))
    assert e.value is error


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (NonRetryableError("no"), AT_ONCE),
        (FileNotFoundError("no"), RetryPolicy(first_delay=0, give_up_on=FileNotFoundError)),
        (KeyError("no"), RetryPolicy(first_delay=0, retry_on=OSError)),
    ],
    ids=["non-retryable", "give_up_on", "not in retry_on"],
)
def test_a_final_error_ends_the_retries_at_once(error: Exception, policy: RetryPolicy) -> None:
    """A final error is raised itself, after no further attempt."""
    body = Body(error)
    with pytest.raises(type(error)) as e:
        attempts(body, policy)
    assert e.value is error
    assert body.calls == 1
    assert attempts_of(e.value) == 1


def test_a_final_error_later_on_tells_the_attempts() -> None:
    """The number of attempts before a final error survives being stored."""
    with pytest.raises(NonRetryableError) as e:
        attempts(Body(OSError(), OSError(), NonRetryableError("enough")))
    assert attempts_of(e.value) == 3
    assert attempts_of(PICKLE.loads(PICKLE.dumps(e.value))) == 3


def test_the_policy_sees_the_original_error() -> None:
    """An error that cannot be stored is retried, or not, by its own class."""
    body = Body(KeywordOnlyError(code=1))
    assert attempts(body, RetryPolicy(first_delay=0, retry_on=KeywordOnlyError)) == Retried(
        "done", 2
    )


@pytest.mark.parametrize(
    "error",
    [
        KeywordOnlyError(code=7),
        ChangedByPickleError("card"),
        OtherTypeError("x"),
        ValueError(threading.Lock()),
        ValueError(lambda: None),
        ExceptionGroup("several", [KeywordOnlyError(code=1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_cannot_be_stored_is_told_in_plain_data_live(error: Exception) -> None:
    """What a replay could not raise is not raised live either: both get the plain data."""
    with pytest.raises(StepFailedError) as e:
        attempts(Body(error), RetryPolicy(max_attempts=1))
    assert e.value.error_type == type_name(error)
    assert e.value.message == str(error)
    assert "in __call__" in e.value.traceback
    assert e.value.__cause__ is error
    assert storable(e.value, PICKLE) is e.value


def test_errors_of_a_local_class_are_plain_data() -> None:
    """A class that pickle cannot find by name makes its errors plain data."""

    class HereError(Exception):
        pass

    assert isinstance(storable(HereError("x"), PICKLE), StepFailedError)


def test_an_unstorable_error_among_several() -> None:
    """In the list of all errors, too, those that cannot be stored are plain data."""
    with pytest.raises(RetriesExhaustedError) as e:
        attempts(
            Body(OSError("a"), KeywordOnlyError(code=3)), RetryPolicy(max_attempts=2, first_delay=0)
        )
    assert [type(error) for error in e.value.errors] == [OSError, StepFailedError]
    back = PICKLE.loads(PICKLE.dumps(e.value))
    assert back.errors[1].error_type == type_name(KeywordOnlyError(code=3))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        ValueError(),
        OSError(2, "No such file"),
        KeyError(("a", 1)),
        WithFactsError("m", 4),
        ValueError(Opaque()),
        RuntimeError(ValueError("inner")),
        ValueError(float("nan")),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StepFailedError("a.B", "m"),
        NonRetryableError("x"),
    ],
    ids=label,
)
def test_an_error_that_survives_stays_itself(error: Exception) -> None:
    """An error that comes back with its type and arguments is stored as it is."""
    assert storable(error, PICKLE) is error


def test_the_codec_decides_what_can_be_stored() -> None:
    """An error must survive the serializer in use, whatever that is."""

    class Broken:
        def dumps(self, value: Any) -> bytes:
            return pickle.dumps(value)

        def loads(self, data: Any) -> Any:
            raise ValueError("cannot read")

    assert isinstance(storable(ValueError("x"), Broken()), StepFailedError)


def test_a_cancelled_error_of_the_body_is_a_failure() -> None:
    """A body that raises `CancelledError` of its own accord has failed, and is tried again."""
    body = Body(asyncio.CancelledError("inner"))
    assert attempts(body) == Retried("done", 2)
    with pytest.raises(StepFailedError, match="CancelledError: inner"):
        attempts(Body(asyncio.CancelledError("inner")), RetryPolicy(max_attempts=1))


def test_a_cancelled_error_of_a_body_on_a_loop_is_a_failure() -> None:
    """So it is on a loop, as long as nobody has cancelled the task itself."""

    async def main() -> Any:
        return await run_attempts(
            ON_LOOP,
            Body(asyncio.CancelledError()),
            name="x",
            retry=RetryPolicy(max_attempts=1),
            codec=PICKLE,
        )

    with pytest.raises(StepFailedError, match="CancelledError"):
        asyncio.run(main())


def test_a_cancellation_of_the_task_passes() -> None:
    """A task that somebody cancels ends as cancelled, and makes no further attempt."""
    calls: list[int] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def body() -> None:
            calls.append(1)
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(
            run_attempts(ON_LOOP, body, name="x", retry=AT_ONCE, codec=PICKLE)
        )
        await begun.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert calls == [1]


def test_an_exit_is_a_failure_of_the_step() -> None:
    """A library that calls sys.exit() in a step fails the step; it does not end the process."""
    with pytest.raises(StepFailedError, match="SystemExit: 3"):
        attempts(Body(SystemExit(3)), RetryPolicy(max_attempts=1))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_passes_untouched(error: BaseException) -> None:
    """Control flow and the end of the process are never retried or rewritten."""
    body = Body(error)
    with pytest.raises(type(error)) as e:
        attempts(body)
    assert e.value is error
    assert body.calls == 1


def test_every_attempt_is_preceded_by_the_look() -> None:
    """`before` is asked ahead of each attempt, and what it raises ends the loop."""
    looks: list[int] = []

    def before() -> None:
        looks.append(body.calls)
        if len(looks) == 3:
            raise LookupError("stop")

    body = Body(OSError(), OSError(), OSError())
    with pytest.raises(LookupError, match="stop"):
        attempts(body, before=before)
    assert looks == [0, 1, 2]
    assert body.calls == 2


def test_the_waits_are_those_of_the_policy() -> None:
    """Between two attempts the loop waits as the policy says, or as the error asks."""
    busy = OSError("busy")
    busy.retry_after = 17  # type: ignore[attr-defined]
    mode = Recording()
    policy = RetryPolicy(max_attempts=4, first_delay=2, backoff=3, jitter=0)
    attempts(Body(OSError(), busy, OSError()), policy, mode=mode)
    assert mode.waits == [2, 17, 18]


def test_chance_shortens_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter of each wait is drawn anew."""
    chances = iter([0.0, 1.0, 0.5])
    monkeypatch.setattr("random.random", lambda: next(chances))
    mode = Recording()
    policy = RetryPolicy(max_attempts=None, first_delay=8, backoff=1, jitter=0.5)
    attempts(Body(OSError(), OSError(), OSError()), policy, mode=mode)
    assert mode.waits == [8, 4, 6]


def test_no_wait_after_the_last_attempt() -> None:
    """An exhausted step fails at once."""
    mode = Recording()
    with pytest.raises(RetriesExhaustedError):
        attempts(Body(OSError(), OSError()), RetryPolicy(max_attempts=2), mode=mode)
    assert len(mode.waits) == 1


def test_shutdown_ends_a_wait() -> None:
    """A step that waits for its next attempt stops as soon as the process shuts down."""
    body = Body(OSError(), OSError())
    alarm.ring()
    try:
        with pytest.raises(ShuttingDown):
            attempts(body, RetryPolicy(max_attempts=None, first_delay=60))
    finally:
        alarm.reset()
    assert body.calls == 1


def test_a_wait_beyond_what_threads_can_wait() -> None:
    """A `retry_after` of a hundred centuries is a wait like any other, not a new error."""
    later = OSError("come back")
    later.retry_after = 1e12  # type: ignore[attr-defined]
    end = threading.Timer(0.02, alarm.ring)
    end.start()
    try:
        with pytest.raises(ShuttingDown):
            attempts(Body(later))
    finally:
        end.join()
        alarm.reset()


def test_attempts_of_a_record() -> None:
    """A record without a count took one attempt; a foreign count is not believed."""
    assert attempts_of("a result") == 1
    assert attempts_of(None) == 1
    assert attempts_of(Retried("x", 4)) == 4
    assert attempts_of(RetriesExhaustedError("s", 6, [ValueError()])) == 6
    odd = ValueError()
    odd.saga_attempts = "many"  # type: ignore[attr-defined]
    assert attempts_of(odd) == 1


def test_names_of_error_classes() -> None:
    """Builtins go without their module, others with it."""
    assert type_name(ValueError()) == "ValueError"
    assert type_name(NonRetryableError()) == "steps.NonRetryableError"
    assert type_name(WithFactsError("x")) == f"{__name__}.WithFactsError"


def test_an_error_without_a_text() -> None:
    """An error whose `__str__` fails is described all the same, and can be stored."""
    error = MuteError("a")
    assert "MuteError" in describe(error)
    plain = as_plain_data(error)
    assert plain.error_type.endswith("MuteError")
    assert storable(plain, PICKLE) is plain


def test_a_traceback_names_cause_and_place() -> None:
    """The traceback in the plain data is the one that Python would print."""
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        text = format_traceback(error)
    assert "KeyError: 'first'" in text
    assert text.rstrip().endswith("ValueError: second")
    assert "test_attempts.py" in text
