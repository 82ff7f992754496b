"""
What is asked of a saga from outside: cancel, terminate, retry, resolve, send.

Each looks at the saga, has `_requests` decide, writes the marks, and only then has DBOS do its
part. So whoever finds the saga between the two, after a crash, knows what was meant.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from . import _codec, _dbos, _requests, _running
from ._errors import PivotPassedError, SagaNotFoundError, SagaUsageError
from ._gate import Gate
from ._history import has_begun, has_passed_pivot, step_records
from ._marks import NEVER_RAN, PARKED, AuditEntry, Marks
from ._messages import KIND, NONE
from ._outcome import ended_with
from ._requests import Act, Refusal, RequestResult, Seen, Way
from ._status import SagaStatus, saga_status

FIRST_LOOK = 0.02
LONGEST_LOOK = 0.5
"""Seconds between two looks at a saga that is waited for, at first and at most."""

_resuming = threading.Lock()
"""DBOS takes a second resume, too, and would run the saga twice at a time."""


def cancel(gate: Gate, saga_id: str, reason: str = "", *, by: str | None = None) -> RequestResult:
    """See `SagaClient.cancel`."""
    _requests.check_request(saga_id, by, reason)
    now = _dbos.now()
    seen = _look(gate, saga_id)
    if not seen.status.is_final and has_passed_pivot(gate.steps(saga_id)):
        raise PivotPassedError(
            f"Saga {saga_id!r} is past its pivot and can only go forward: it is not cancelled. "
            f"`terminate` stops it where it is."
        )
    decision = _requests.cancel(seen, _requests.cancel_request(reason, by, now))
    return _carry_out(gate, seen, decision, AuditEntry("cancel", now, by, reason or None))


def end_of_cancel(gate: Gate, saga_id: str) -> RequestResult | None:
    """What came of a cancel, once the saga has ended; None while it has not."""
    return _requests.end_of_cancel(_look(gate, saga_id))


def wait_for_cancel(gate: Gate, saga_id: str) -> RequestResult:
    """Wait for the end of a saga that was asked to undo itself."""
    look = FIRST_LOOK
    while (ended := end_of_cancel(gate, saga_id)) is None:
        time.sleep(look)
        look = min(look * 1.5, LONGEST_LOOK)
    return ended


async def wait_async(gate: Gate, saga_id: str) -> RequestResult:
    """`wait_for_cancel`, for use on an event loop."""
    look = FIRST_LOOK
    while (ended := await asyncio.to_thread(end_of_cancel, gate, saga_id)) is None:
        await asyncio.sleep(look)
        look = min(look * 1.5, LONGEST_LOOK)
    return ended


def terminate(
    gate: Gate, saga_id: str, *, reason: str = "", by: str | None = None
) -> RequestResult:
    """See `SagaClient.terminate`."""
    _requests.check_request(saga_id, by, reason)
    now = _dbos.now()
    seen = _look(gate, saga_id)
    decision = _requests.terminate(seen, reason, by, now)
    return _carry_out(gate, seen, decision, AuditEntry("terminate", now, by, reason or None))


def retry(
    gate: Gate, saga_id: str, *, by: str | None = None, reason: str | None = None
) -> RequestResult:
    """See `SagaClient.retry`."""
    _requests.check_request(saga_id, by, reason)
    now = _dbos.now()
    seen = _look(gate, saga_id)
    return _carry_out(gate, seen, _requests.retry(seen, now), AuditEntry("retry", now, by, reason))


def resolve(
    gate: Gate, saga_id: str, step_id: int, *, note: str, by: str | None = None
) -> RequestResult:
    """See `SagaClient.resolve`."""
    _requests.check_request(saga_id, by, None)
    _requests.check_text(note, "note")
    if isinstance(step_id, bool) or not isinstance(step_id, int):
        raise SagaUsageError(f"step_id must be the ID of a step, a whole number, not {step_id!r}.")
    now = _dbos.now()
    seen = _look(gate, saga_id)
    steps = step_records(gate.steps(saga_id), seen.marks)
    decision = _requests.resolve(seen, steps, step_id, note, by, now)
    return _carry_out(gate, seen, decision, AuditEntry("resolve", now, by, note))


def send(
    gate: Gate, saga_id: str, topic: str, message: Any, *, idempotency_key: str | None = None
) -> None:
    """See `SagaClient.send`."""
    _requests.check_request(saga_id, None, None)
    _requests.check_topic(topic)
    if idempotency_key is not None:
        _requests.check_text(idempotency_key, "idempotency_key")
    _check_message(message)
    seen = _look(gate, saga_id)
    if seen.status.is_final and (seen.status is not SagaStatus.PARKED or _has_error(seen)):
        raise SagaUsageError(
            f"Saga {saga_id!r} has ended, or does nothing more than undo itself, and would not "
            f"read the message. {seen.ended}"
        )
    gate.send(saga_id, topic, NONE if message is None else message, idempotency_key)


def _has_error(seen: Seen) -> bool:
    return seen.dbos_status == "ERROR"


def _check_message(message: Any) -> None:
    if isinstance(message, dict) and KIND in message:
        raise SagaUsageError(f"A message may not have the key {KIND!r}: it is ours.")
    codec = _codec.current()
    try:
        codec.loads(codec.dumps(message))
    except Exception as error:
        raise SagaUsageError(
            f"A message of type {type(message).__name__} cannot be stored ({error!r}). Send "
            f"plain data."
        ) from error


def _look(gate: Gate, saga_id: str) -> Seen:
    row = gate.row(saga_id)
    if row is None:
        raise SagaNotFoundError(f"There is no saga {saga_id!r} in this database.")
    seen = _seen(row)
    if seen.status is SagaStatus.STARTED and gate.steps(saga_id):
        return _seen(row, begun=True)  # resumed by somebody before it came to write a mark
    return seen


def _seen(row: Any, *, begun: bool = False) -> Seen:
    marks = Marks.parse(row.attributes)
    error = ended_with(row)
    begun = begun or has_begun(row, marks)
    parked = marks.parked.time if marks.parked is not None else None
    return Seen(
        saga_id=row.workflow_id,
        name=row.name,
        dbos_status=row.status,
        status=saga_status(row.status, marks, error, has_begun=begun),
        marks=marks,
        error=error,
        ran=bool(row.recovery_attempts),
        parked_since=row.completed_at if parked is None else parked,
    )


def _carry_out(gate: Gate, seen: Seen, decision: Act | Refusal, entry: AuditEntry) -> RequestResult:
    if isinstance(decision, Refusal):
        return RequestResult(False, seen.status, decision.message)
    saga_id = seen.saga_id
    marks = {**decision.marks, **entry.attributes(secrets.token_hex(4))}
    match decision.way:
        case Way.MARK:
            _mark(gate, saga_id, marks)
        case Way.HALT:
            _stop(gate, saga_id, marks)
        case Way.FORESTALL:
            _stop(gate, saga_id, marks)
            _declare_forestalled(gate, saga_id)
        case Way.RESUME:
            if not _resume(gate, seen, marks):
                return _under_way(gate, saga_id)
        case Way.REWIND:
            if not _rewind(gate, saga_id, marks):
                return _under_way(gate, saga_id)
    return _requests.report(decision, seen, _look(gate, saga_id))


def _mark(gate: Gate, saga_id: str, marks: Mapping[str, Any]) -> None:
    gate.mark(saga_id, marks)
    _running.notice(saga_id)


def _stop(gate: Gate, saga_id: str, marks: Mapping[str, Any]) -> None:
    gate.mark(saga_id, marks)
    gate.dbos_cancel(saga_id)
    _running.notice(saga_id)  # what runs of it here is to make no further attempt


def _declare_forestalled(gate: Gate, saga_id: str) -> None:
    mark = _requests.forestalled(_look(gate, saga_id))
    if mark is None:
        return
    _mark(gate, saga_id, mark)
    if _requests.forestalled(_look(gate, saga_id)) is None:
        _mark(gate, saga_id, {NEVER_RAN: None})  # somebody resumed it in between


def _resume(gate: Gate, seen: Seen, marks: Mapping[str, Any]) -> bool:
    """
    Have a parked saga run again; whether it was still parked.

    Its parked mark goes last: without it, DBOS's CANCELLED would be taken for a stop, and the
    saga be undone. Once a worker has it, clearing the mark is the worker's part, as it may have
    parked the saga again.
    """
    saga_id = seen.saga_id
    with _resuming:
        if not _is_parked_as(seen, _look(gate, saga_id), seen.dbos_status):
            return False
        _mark(gate, saga_id, marks)
        gate.resume(saga_id)
        if _is_parked_as(seen, _look(gate, saga_id), "ENQUEUED"):
            _mark(gate, saga_id, {PARKED: None})
    return True


def _is_parked_as(before: Seen, now: Seen, dbos_status: str) -> bool:
    return now.dbos_status == dbos_status and now.marks.parked == before.marks.parked


def _rewind(gate: Gate, saga_id: str, marks: Mapping[str, Any]) -> bool:
    """Have an ended saga run again behind its last step; whether no other request was faster."""
    row = gate.row(saga_id)
    version = gate.latest_version(row.application_name)
    last = max((int(step["function_id"]) for step in gate.steps(saga_id)), default=0)
    _mark(gate, saga_id, marks)
    try:
        gate.rewind(saga_id, last + 1, version)
    except _dbos.DBOSError:
        if _look(gate, saga_id).status.is_final:
            raise
        return False
    return True


def _under_way(gate: Gate, saga_id: str) -> RequestResult:
    status = _look(gate, saga_id).status
    return RequestResult(False, status, f"Saga {saga_id!r}: another request is under way already.")
