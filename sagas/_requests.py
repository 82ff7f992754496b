"""
What a request from outside may do to a saga: decided from what was seen of it. Pure.

A decision is an `Act`, to be carried out by `_verbs`, or a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ._errors import CompensationFailedError, SagaCancelledError, SagaOutcomeError, SagaUsageError
from ._history import StepRecord
from ._marks import (
    FORGIVEN,
    NEVER_RAN,
    PARKED_MS,
    PREFIX,
    REQUEST,
    RETRY,
    STRUGGLING,
    Marks,
    is_storable_text,
    json_text,
    resolved_attributes,
    stop_attributes,
    terminated_attributes,
)
from ._status import SagaStatus, StepStatus
from ._stop import Stop, Why


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What came of a request to a saga. It is true where the request was accepted."""

    accepted: bool
    """Whether it was, or is being, done."""
    status: SagaStatus
    """The state of the saga after it."""
    message: str
    """What was done, or why not and what to do now."""

    def __bool__(self) -> bool:
        """Whether it was accepted."""
        return self.accepted


@dataclass(frozen=True, slots=True)
class Seen:
    """A saga, as a request finds it."""

    saga_id: str
    name: str
    dbos_status: str
    status: SagaStatus
    marks: Marks = field(default_factory=Marks)
    error: SagaOutcomeError | None = None
    """What it ended with."""
    ran: bool = True
    """Whether a worker has taken it since it was created, or resumed."""
    parked_since: int | None = None
    """When it was parked, in milliseconds since the epoch."""

    @property
    def ended(self) -> str:
        """How it ended, in a sentence."""
        if self.status is SagaStatus.COMPLETED:
            return f"Saga {self.saga_id!r} ({self.name}) has completed."
        return str(self.error)


class Way(Enum):
    """How an act is carried out; its marks are always written first."""

    MARK = "mark"
    """The marks are all: the saga that runs, or will, notices them."""
    FORESTALL = "forestall"
    """DBOS cancels it before a worker takes it."""
    HALT = "halt"
    """DBOS cancels it where it is."""
    RESUME = "resume"
    """DBOS runs it again from its checkpoints."""
    REWIND = "rewind"
    """DBOS runs it again although it had ended: its unread messages are dropped."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be done."""

    way: Way
    marks: Mapping[str, Any]
    message: str
    """What to say when it is done."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is to be done, and what to do instead."""

    message: str


def cancel(seen: Seen, stop: Stop) -> Act | Refusal:
    """Whether a saga can be asked to undo itself, and how."""
    saga = f"Saga {seen.saga_id!r}"
    if (being := _being_terminated(seen)) is not None:
        return being
    marks = stop_attributes(stop)
    match seen.status:
        case SagaStatus.STARTED:
            return Act(Way.FORESTALL, marks, f"{saga} is cancelled before it began.")
        case SagaStatus.PENDING if seen.marks.stop is not None:
            text = seen.marks.stop.text
            return Act(Way.MARK, {REQUEST: True}, f"{saga} was to turn round already: {text}.")
        case SagaStatus.PENDING:
            return Act(
                Way.MARK, marks, f"{saga} is asked to undo itself; its end tells whether it did."
            )
        case SagaStatus.COMPENSATING:
            return Refusal(f"{saga} is being undone already.")
        case SagaStatus.PARKED if _is_to_go_forward(seen):
            return Act(Way.RESUME, marks, f"{saga} was parked; it is resumed and undone.")
        case SagaStatus.PARKED:
            return Refusal(
                f"{saga} is parked and cannot be cancelled: {_reason(seen)}. `retry` it, or undo "
                f"by hand and `resolve` the step."
            )
        case _:
            return Refusal(f"Too late to cancel. {seen.ended}")


def terminate(seen: Seen, reason: str, by: str | None, now: int) -> Act | Refusal:
    """Whether a saga can be stopped where it is, and how."""
    if seen.status.is_final and seen.status is not SagaStatus.PARKED:
        return Refusal(f"Too late to terminate. {seen.ended}")
    return Act(
        Way.MARK if seen.dbos_status == "ERROR" else Way.HALT,
        terminated_attributes(reason, by, now),
        f"Saga {seen.saga_id!r} is terminated: what it had done and not yet undone stands.",
    )


def retry(seen: Seen, now: int) -> Act | Refusal:
    """Whether a parked saga can be taken up again, and how."""
    if seen.status is not SagaStatus.PARKED:
        return Refusal(
            f"Saga {seen.saga_id!r} is {seen.status}, not PARKED: there is nothing to retry."
        )
    since = now if seen.parked_since is None else seen.parked_since
    # Never nothing: it tells, too, that the saga has begun.
    parked_ms = max(1, seen.marks.parked_ms + max(0, now - since))
    marks: dict[str, Any] = {PARKED_MS: parked_ms, STRUGGLING: None}
    if seen.marks.takeovers:
        marks[FORGIVEN] = seen.marks.takeovers
    stop = seen.marks.stop
    if stop is not None and stop.why is Why.DEAD_LETTER:
        # It stays stopped; but a person says that the step may be run once more.
        marks |= stop_attributes(replace(stop, why=Why.DBOS_CANCEL))
    message = f"Saga {seen.saga_id!r} was parked and goes on."
    if seen.dbos_status == "ERROR":
        return Act(Way.REWIND, {**marks, RETRY: seen.marks.retry + 1}, message)
    return Act(Way.RESUME, marks, message)


def resolve(
    seen: Seen, steps: Sequence[StepRecord], step_id: int, note: str, by: str | None, now: int
) -> Act | Refusal:
    """
    Whether a step can be declared undone, and how the saga goes on.

    Raises:
        SagaUsageError: The saga has no such step.
    """
    saga = f"Saga {seen.saga_id!r}"
    known = {s.step_id: s.name for s in steps}
    if isinstance(seen.error, CompensationFailedError):
        known = {**{n.step_id: n.name for n in seen.error.not_undone}, **known}
    if _is_asking(seen, step_id):
        known.setdefault(step_id, "?")  # it has no row yet
    if step_id not in known:
        names = ", ".join(f"{i}:{n}" for i, n in sorted(known.items())) or "none yet"
        raise SagaUsageError(f"{saga} has no step {step_id}. Its steps: {names}.")
    step = f"step {step_id} {known[step_id]!r}"
    record = next((s for s in steps if s.step_id == step_id), None)
    if record is not None and record.status in (StepStatus.COMPENSATED, StepStatus.RESOLVED):
        rest = " `retry` the saga." if seen.status is SagaStatus.PARKED else ""
        return Refusal(f"{saga}: {step} is {record.status} already.{rest}")
    if (being := _being_terminated(seen)) is not None:
        return being
    if record is not None and record.status is StepStatus.COMPLETED and _is_to_go_forward(seen):
        return Refusal(
            f"{saga}: {step} has completed, and the saga is parked on its way forward. `retry` it "
            f"to go on from there, or `cancel` it to have the step undone."
        )
    marks = resolved_attributes(step_id, note, by, now)
    if seen.status is SagaStatus.COMPENSATING or _is_asking(seen, step_id):
        return Act(Way.MARK, marks, f"{saga}: {step} counts as undone; the saga goes on.")
    act = retry(seen, now)
    if isinstance(act, Refusal):
        return Refusal(
            f"{saga} is {seen.status}: a step can be resolved while its saga is PARKED or "
            f"COMPENSATING."
        )
    message = f"{saga}: {step} counts as undone; the saga was parked and goes on."
    return replace(act, marks={**act.marks, **marks}, message=message)


def _is_asking(seen: Seen, step_id: int) -> bool:
    """Whether a running saga asks the probe of a step, again and again in vain."""
    struggling = seen.marks.struggling
    running = seen.status is SagaStatus.PENDING
    return running and struggling is not None and struggling.step_id == step_id


def _being_terminated(seen: Seen) -> Refusal | None:
    if seen.marks.terminated is None or seen.status.is_final:
        return None
    return Refusal(f"Saga {seen.saga_id!r} is being terminated.")


def _is_to_go_forward(seen: Seen) -> bool:
    """Whether a parked saga has not turned round."""
    parked = seen.status is SagaStatus.PARKED
    return parked and seen.dbos_status != "ERROR" and seen.marks.turn is None


def _reason(seen: Seen) -> str:
    return str(getattr(seen.error, "reason", "it cannot go on by itself"))


def forestalled(seen: Seen) -> Mapping[str, Any] | None:
    """The mark of a saga that was cancelled before it began; None where a worker was faster."""
    if seen.dbos_status != "CANCELLED" or seen.ran or seen.marks.terminated is not None:
        return None
    return {NEVER_RAN: True}


def report(act: Act, before: Seen, after: Seen) -> RequestResult:
    """What came of an act, from what is seen of the saga after it."""
    done = after.status is SagaStatus.TERMINATED
    if act.way is Way.HALT or (act.way is Way.MARK and before.dbos_status == "ERROR"):
        if done or not after.status.is_final:
            return RequestResult(True, after.status, act.message)
        return RequestResult(False, after.status, f"Too late to terminate. {after.ended}")
    if after.status is SagaStatus.PARKED:
        message = f"{act.message} It has parked meanwhile: {_reason(after)}; `retry` it."
        return RequestResult(True, after.status, message)
    if act.way in (Way.MARK, Way.FORESTALL) and after.status.is_final:
        as_asked = before.status is SagaStatus.COMPENSATING or isinstance(
            after.error, SagaCancelledError
        )
        if not as_asked:
            return RequestResult(False, after.status, f"It came too late. {after.ended}")
        return RequestResult(True, after.status, after.ended)
    if act.way is Way.FORESTALL:
        message = f"Saga {after.saga_id!r} had just begun; it is stopped and undoes itself."
        return RequestResult(True, after.status, message)
    return RequestResult(True, after.status, act.message)


def end_of_cancel(seen: Seen) -> RequestResult | None:
    """What came of a cancel, once the saga has ended; None while it has not."""
    if not seen.status.is_final:
        return None
    return RequestResult(isinstance(seen.error, SagaCancelledError), seen.status, seen.ended)


def check_text(value: Any, what: str, *, blank: bool = False) -> str:
    """
    `value`, if it is text that every database can store.

    Raises:
        SagaUsageError: It is not; or it is blank, and must not be.
    """
    if not isinstance(value, str) or not (blank or value.strip()):
        kind = "text" if blank else "text that is not blank"
        raise SagaUsageError(f"{what} must be {kind}, not {value!r}.")
    if not is_storable_text(value):
        raise SagaUsageError(
            f"{what} must be text that a database can store, without NUL or half a character, "
            f"not {value!r}."
        )
    return value


def check_request(saga_id: Any, by: Any, reason: Any) -> None:
    """
    See that what every verb takes can be written down.

    Raises:
        SagaUsageError: It cannot.
    """
    check_text(saga_id, "saga_id")
    if by is not None:
        check_text(by, "by")
    if reason is not None:
        check_text(reason, "reason", blank=True)


def check_topic(topic: Any) -> None:
    """
    See that a message can be sent to a topic.

    Raises:
        SagaUsageError: It is no topic, or one of this library's own.
    """
    check_text(topic, "topic")
    if topic.startswith(PREFIX):
        raise SagaUsageError(f"The topic {topic!r} is reserved: none may begin with {PREFIX!r}.")


def cancel_request(reason: str, by: str | None, now: int) -> Stop:
    """A request to cancel."""
    return Stop(Why.CANCEL, json_text(reason), by, now)
