"""What an error that came out of a step or a wait means: the step's failure, or all else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy.exc import StatementError

from . import _dbos
from ._control import Fault, Interrupted
from ._verdict import Progress

if TYPE_CHECKING:
    from ._context import SagaRun

log = logging.getLogger("sagas")


async def sort_out(
    run: SagaRun, error: BaseException, step_id: int, name: str, progress: Progress
) -> None:
    """
    Tell a failure of the step, which the body may handle, from all else.

    Raises:
        Fault: The machinery failed.
    """
    if not isinstance(error, Exception):
        # DBOS's control flow, ours, or the end of this execution.
        if not isinstance(error, asyncio.CancelledError):
            run.stop = run.stop or error
        return
    _refuse_mismatch(run, error, step_id, name)
    if not progress.invoked and _is_refusal(error) and step_id not in run.resolved:
        reason = (
            f"step {step_id} {name!r} ended, and the database refused to record how: "
            f"{error.args[0]}. Find out whether it took effect; then `resolve` it if its effect "
            f"is not there or is undone by hand"
        )
        fault(run, Fault(reason, step_id), error)
    if progress.error is not error and (
        progress.invoked or not await _is_recorded(run, error, step_id)
    ):
        _stop_for(run, error, step_id, name)
    if not run.fresh:
        run.passed[step_id] = name
    run.raised.append((error, step_id, name))


def not_received(run: SagaRun, error: BaseException, step_id: int) -> None:
    """
    Sort out what DBOS raised in a wait, which is never a failure of the saga.

    Raises:
        Fault: The machinery failed.
    """
    if not isinstance(error, Exception):
        if not isinstance(error, asyncio.CancelledError):
            run.stop = run.stop or error
        return
    _refuse_mismatch(run, error, step_id, "receive")
    _stop_for(run, error, step_id, "receive")


def _is_refusal(recorded: Exception) -> bool:
    """Whether DBOS recorded, as an async step's error, that its result could not be recorded."""
    return isinstance(recorded, StatementError) and "workflow_uuid" in (recorded.statement or "")


def _refuse_mismatch(run: SagaRun, error: Exception, step_id: int, name: str) -> None:
    if isinstance(error, _dbos.MISMATCH):
        reason = (
            f"the saga's code does not match its history at step {step_id} {name!r} ({error}). "
            f"Bring back the code it began with, or use DBOS.patch for the change"
        )
        fault(run, Fault(reason), error)


def _stop_for(run: SagaRun, error: Exception, step_id: int, name: str) -> NoReturn:
    """Stop, as DBOS could not read or record a step."""
    run.check()  # after a shutdown the database is closed
    if not isinstance(error, _dbos.UNAVAILABLE):
        reason = f"step {step_id} {name!r} cannot be recorded or read: {error!r}"
        fault(run, Fault(reason), error)
    log.error(
        "Saga %s stops at step %d %r, as the database failed: %r. It goes on once the database "
        "answers.",
        run.saga_id,
        step_id,
        name,
        error,
    )
    run.stop = run.stop or Interrupted(str(error))
    raise run.stop from error


def fault(run: SagaRun, what: Fault, cause: BaseException | None) -> NoReturn:
    """
    Stop, as the machinery failed.

    Raises:
        Fault: `what`, or what had stopped the run before.
    """
    run.stop = run.stop or what
    raise run.stop from cause


async def _is_recorded(run: SagaRun, error: Exception, step_id: int) -> bool:
    """Whether a step that was not run here raised what was recorded of it."""
    if run.fresh:
        return False
    try:
        recorded = await run.host.ask(_dbos.list_steps, run.saga_id)
    except Exception:
        return False
    return any(r["function_id"] == step_id and type(r["error"]) is type(error) for r in recorded)
