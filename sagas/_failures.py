"""Why a saga, or a scope of it, turns round: of what was raised, the failure that is told."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from steps._attempts import format_traceback

from . import _outcome
from ._errors import Failure
from ._history import failure_of
from ._marks import json_text
from ._stop import Stop

if TYPE_CHECKING:
    from ._context import SagaRun


def cause_of(run: SagaRun, raised: BaseException | None) -> Failure:
    """Why the saga turns round: of several errors, that of the step with the lowest ID."""
    if run.stopped is not None:
        return stopped_at(run, run.stopped)
    assert raised is not None, "a saga that nothing has stopped turns round for an error"
    leaves = leaves_of(raised)
    known = [
        (step_id, name, leaf)
        for leaf in leaves
        for error, step_id, name in run.raised
        if error is leaf
    ]
    if known:
        step_id, name, error = min(known, key=lambda k: k[0])
        failure = failure_of(error, name, step_id)
    else:
        error = leaves[0]
        failure = failure_of(error)
    text = failure.traceback or format_traceback(error)
    return clean(dataclasses.replace(failure, traceback=text))


def stopped_at(run: SagaRun, stop: Stop) -> Failure:
    """The step at which the saga noticed that it was stopped, whatever its body made of that."""
    kind = "SagaTimeoutError" if stop.why.is_timeout else "SagaCancelledError"
    noticed = [(i, n) for error, i, n in run.raised if _outcome.stop_of(error) is not None]
    step_id, name = min(noticed) if noticed else (None, None)
    return clean(Failure(name, step_id, f"sagas.{kind}", stop.text))


def clean(failure: Failure) -> Failure:
    """`failure` with texts that can be stored and printed."""
    return dataclasses.replace(
        failure,
        error_type=json_text(failure.error_type),
        message=json_text(failure.message),
        traceback=json_text(failure.traceback),
    )


def leaves_of(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
