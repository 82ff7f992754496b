"""What happens when an exception leaves a scope: its steps are undone, and it goes on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from . import _dbos
from ._control import Stuck
from ._errors import NotUndone, StepRef
from ._failures import cause_of, clean
from ._history import failure_of
from ._scope import Scope
from ._stack import undo_name
from ._undoing import undo

if TYPE_CHECKING:
    from steps.abc import Compensation

    from ._context import SagaRun

log = logging.getLogger("sagas")


async def leave(run: SagaRun, scope: Scope, error: BaseException) -> None:
    """
    Undo the steps of a scope, newest first.

    A saga that has been stopped is not undone twice over: its own turn comes next.

    Raises:
        Stuck: An undo failed for good.
        Fault: The machinery failed.
    """
    if run.group is not None:
        await run.group.settle_within(scope)
    run.check()
    if run.stopped is not None or run.turn_is_next():
        return
    await run.await_leftovers()
    undone: list[StepRef] = []
    not_undone: list[NotUndone] = []
    for step_id, compensation in run.stack.newest_first(scope):
        if not_undone and run.undo_failure == "halt":
            not_undone.append(NotUndone(step_id, compensation.name, None))
            continue
        try:
            await _undo(run, step_id, compensation, scope)
        except Exception as failed:
            failure = clean(failure_of(failed, compensation.name, step_id))
            log.error(
                "Saga %s: the undo of step %d %r failed for good: %s",
                run.saga_id,
                step_id,
                compensation.name,
                failure.message,
            )
            not_undone.append(NotUndone(step_id, compensation.name, failure))
        else:
            run.stack.drop(step_id)
            undone.append(StepRef(step_id, compensation.name))
    if not_undone:
        run.stop = run.stop or Stuck(cause_of(run, error), undone, not_undone)
        raise run.stop


async def _undo(run: SagaRun, step_id: int, what: Compensation, scope: Scope) -> None:
    """
    Run one undo, or get its recorded outcome; once more for each time that it was taken up again.

    Raises:
        Exception: It failed for good.
    """
    again = 0
    while True:
        name = undo_name(step_id, what.name, again)
        reservation = run.draw(name)
        run.drawn.pop(reservation.step_id, None)
        work = undo(run, reservation, name, step_id, what)
        try:
            if run.group is None:
                await work
            else:
                await run.group.join(reservation.step_id, work, scope.parent)
        except Exception:
            if again >= run.retries:
                raise
            again += 1
        else:
            return


async def shielded(run: SagaRun, scope: Scope, error: BaseException) -> None:
    """`leave`, to its end, however often the task is cancelled meanwhile."""
    leaving = asyncio.ensure_future(leave(run, scope, error))
    cancelled: asyncio.CancelledError | None = None
    while not leaving.done():
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError as request:
            if leaving.done():
                break
            cancelled = request
        except BaseException:
            break
    leaving.result()
    if cancelled is not None:
        raise cancelled


def begin(run: SagaRun, name: str, parent: Scope | None, timeout: float | None) -> Scope:
    """Enter a scope; one with a time limit draws an ID, which has no row."""
    scope = Scope(name, parent, timeout)
    if timeout is not None:
        entry = run.draw(f"scope {name}")
        run.drawn.pop(entry.step_id, None)
        scope.entry = entry.step_id
    return scope


async def set_deadline(run: SagaRun, scope: Scope) -> None:
    """
    Have a scope's time run from the moment its first step began.

    In an execution that is fresh that is now. Any other finds it in the history.
    """
    if scope.timeout is None:
        return
    began = _dbos.now()
    if not run.fresh:
        for row in await run.host.ask(_dbos.list_steps, run.saga_id):
            if row["function_id"] > scope.entry and row["started_at_epoch_ms"]:
                began = min(began, row["started_at_epoch_ms"])
                break
    scope.deadline = began / 1000 + scope.timeout
