"""
The engine: one execution of one saga, from its first line to its outcome.

1. *Open.* An execution that its own caller has just created knows that it is new. Every other
   waits for the end of those that it supersedes in this process, and looks at its row: it may
   have been asked to stop, or have turned round already.
2. *Forward.* The body runs; its steps go through `SagaRun`.
3. *Settle.* Whatever the body began is waited for: a saga neither completes nor unwinds before.
4. *Decide* what the end of the body means. A fault of the machinery parks the saga. An execution
   that lost the saga, or is dying, leaves it as it is, for the next one. A return completes it,
   unless it was stopped: a body that swallows that gains nothing. Anything else turns it round.
5. *Turn.* The turn is written down with the step ID it happened at, so that it happens there
   again in every replay, whatever the body does by then. A replay that has not come by every
   recorded step does not know the whole stack: it parks.
6. *Unwind.* The undos run newest first, each a DBOS step of its own. One that is recorded is not
   run again, wherever it stands.
7. *End* with the outcome, which DBOS records.

This is the only place that handles `BaseException`s at their end; everywhere else they pass.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from steps._attempts import as_plain_data, describe, format_traceback, type_name
from steps._mode import ShuttingDown
from steps._policy import RetryPolicy
from steps.abc import current_key, current_recorder

from . import _codec, _dbos, _kept, _outcome, _running
from ._context import SagaRun
from ._control import Fault, Interrupted, Stuck, TurnRound
from ._errors import NotUndone, StepRef
from ._failures import cause_of, clean, leaves_of
from ._history import failure_of
from ._host import Host
from ._marks import PARKED, Marks, Parked, Turn
from ._stack import Recorded, first_not_passed, is_stale, settled_undos, undo_name, undo_outcomes
from ._stop import Why
from ._ticket import current_ticket
from ._undoing import undo
from ._verdict import ATOMS

log = logging.getLogger("sagas")


@dataclass(slots=True)
class Engine:
    """What the engine needs to know of a saga's definition."""

    name: str
    body: Callable[..., Any]
    is_async: bool
    undo_failure: str
    timeout: float | None
    retriable: RetryPolicy


async def execute(saga: Engine, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one execution of a saga; called by DBOS, as the workflow."""
    saga_id = _dbos.workflow_id()
    assert saga_id is not None, "DBOS runs a workflow under an ID"
    ticket = current_ticket.get()
    fresh = ticket is not None and ticket.redeem()
    run = SagaRun(saga_id, saga.name, host, _codec.current(), fresh=fresh)
    run.undo_failure, run.retriable = saga.undo_failure, saga.retriable
    token = current_recorder.set(run)
    key = current_key.set(None)  # of a step that started this, if there is one
    before = _running.add(run)
    lost = False
    try:
        if fresh and ticket is not None:
            _set_deadline(run, ticket.timeout or saga.timeout, _dbos.now())
        else:
            await _open(saga, run, before)
        return await _forward(saga, run, args, kwargs)
    except BaseException as error:
        if not run.ending.is_set():
            await run.await_leftovers()  # before another execution settles their steps
        lost = not isinstance(error, Exception | ShuttingDown | _dbos.LOST[0] | _dbos.LOST[1])
        if run.knows_begun and not isinstance(error, Exception):
            _kept.leave(saga_id, frozenset(run.begun))
        if run.is_async and isinstance(error, SystemExit):
            raise Interrupted(f"exit: {error}") from error  # it would end the event loop, too
        raise
    finally:
        run.closed = True
        _running.remove(run)
        run.ended.set()
        if lost:
            _running.lose(saga_id)
        current_key.reset(key)
        current_recorder.reset(token)


async def _open(saga: Engine, run: SagaRun, before: Sequence[_running.Run]) -> None:
    """Learn what there is to know of a saga that this execution did not create."""
    for other in before:  # it has lost the saga; what it is doing must end before this goes on
        other.fence(f"saga {run.saga_id!r} was taken up again")
    for other in before:
        await _wait_for(run, other)
    row = await run.host.ask(_dbos.light_row, run.saga_id)
    marks = Marks.parse(row.attributes)
    if marks.terminated is not None:  # whoever marked it came no further
        await run.host.ask(_dbos.cancel, run.saga_id)
        raise _dbos.LOST[0](f"Saga {run.saga_id} is terminated")
    if marks.parked is not None:
        await run.host.ask(_dbos.mark, run.saga_id, {PARKED: None})
    run.request, run.asked_before = marks.stop, marks.stop is not None
    run.dead_letter = marks.stop is not None and marks.stop.why is Why.DEAD_LETTER
    run.resolved, run.retries = marks.resolved, marks.retry
    run.age = _kept.Age(marks.takeovers, (marks.retry, marks.parked_ms))
    run.struggling = marks.struggling is not None
    run.first = _is_first(row, marks)
    begun = _kept.inherit(run.saga_id, marks.takeovers) if row.recovery_attempts == 1 else None
    if begun is not None:
        run.inherited, run.begun = True, set(begun)
    began = max(row.created_at, row.delay_until_epoch_ms or 0) + marks.parked_ms
    _set_deadline(run, marks.timeout or saga.timeout, began)
    if marks.turn is not None and not is_stale(marks.turn.at, await run.rows()):
        run.turn = marks.turn


async def _wait_for(run: SagaRun, other: _running.Run) -> None:
    while not await run.host.mode.call(lambda: other.ended.wait(0.1), False):
        run.check()


def _is_first(row: Any, marks: Marks) -> bool:
    """Whether no execution before this one can have begun a step."""
    again = (
        marks.takeovers
        or marks.retry
        or marks.parked_ms
        or marks.parked is not None
        or marks.turn is not None
    )
    return row.recovery_attempts == 1 and not again and _is_at_home(row.queue_name)


def _is_at_home(queue: str | None) -> bool:
    """Whether it runs from where it was started: DBOS puts what it resumes into its own queue."""
    return queue is None or not queue.startswith(_dbos.RESERVED_QUEUES)


def _set_deadline(run: SagaRun, timeout: float | None, began: int) -> None:
    if timeout is not None:
        run.timeout, run.deadline = timeout, began / 1000 + timeout


async def _forward(
    saga: Engine, run: SagaRun, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    value: Any = None
    raised: BaseException | None = None
    run.in_body = True
    try:
        value = await run.host.mode.call(lambda: saga.body(*args, **kwargs), saga.is_async)
    except SystemExit as error:
        raised = as_plain_data(error)  # the body's failure: a saga does not end the process
    except BaseException as error:
        raised = error
    run.in_body = False
    if run.stop is None and _is_death(run, raised):
        assert raised is not None
        run.closed = True
        run.fence("its execution has ended")
        await run.settle()  # whoever takes it up again does so when nothing of it goes on here
        raise raised
    run.closed = raised is not None
    unseen = await run.settle()
    run.closed = True
    if raised is not None and run.stop is None:
        run.stop = ShuttingDown() if run.ending.is_set() else _mismatch(run, raised)
    _raise_unless_ours(run, raised)
    try:
        if isinstance(run.stop, Fault):
            raise run.stop
        if isinstance(run.stop, Stuck):
            return _raise_stuck(run, run.stop)
        if run.pivoted and (raised is not None or unseen):
            raise _past_pivot(raised or unseen[0])
        if raised is None and unseen and run.stop is None:
            raised = unseen[0]
        if raised is None and run.turn is None and not _is_stopped(run):
            if not (run.fresh or run.first):
                await _check_end(run, _dbos.reserve().step_id)
            _check_storable(run, value)
            return value
        cause = raised if run.turn is None else None
        outcome = await _turn_round(saga, run, raised)
    except Fault as fault:
        await _park(run, fault, raised)
    raise outcome from cause


def _raise_stuck(run: SagaRun, stuck: Stuck) -> NoReturn:
    raise _outcome.compensation_failed(
        run.saga_id, run.name, stuck.cause, stuck.undone, stuck.not_undone
    )


def _past_pivot(raised: BaseException) -> Fault:
    return Fault(
        f"it is past its pivot and can only go forward, but its body raised "
        f"{type_name(raised)}: {describe(raised)}. Mend what is in the way and `retry` it"
    )


def _mismatch(run: SagaRun, raised: BaseException) -> Fault | None:
    """The fault, where the body's own calls of DBOS (a patch, say) do not match the history."""
    for error in leaves_of(raised):
        of_step = any(error is known for known, _, _ in run.raised)
        if isinstance(error, _dbos.MISMATCH) and not of_step:
            return Fault(
                f"the saga's code does not match its history ({error}). Bring back the code it "
                f"began with, or use DBOS.patch for the change, outside of concurrent branches"
            )
    return None


def _is_stopped(run: SagaRun) -> bool:
    """Whether a saga whose body has come to its end is to turn round all the same."""
    if run.pivoted:
        return False
    asked = run.request
    if run.stopped is None and asked is not None and (asked.why.is_firm or run.asked_before):
        run.stopped = asked
    return run.stopped is not None


def _is_death(run: SagaRun, raised: BaseException | None) -> bool:
    """Whether the end of the body is the end of this execution, and nothing of the saga's."""
    if raised is None or isinstance(raised, Exception | BaseExceptionGroup):
        return False
    if isinstance(raised, asyncio.CancelledError):
        if not run.is_async:
            return False
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return True


def _raise_unless_ours(run: SagaRun, raised: BaseException | None) -> None:
    """
    Leave a saga alone that this execution has lost, or that outlives it.

    A `BaseException` of a step, which the body may have swallowed, was remembered in `stop`.
    """
    if run.stop is not None and not isinstance(run.stop, Fault | TurnRound | Stuck):
        raise run.stop
    if run.stop is None and isinstance(raised, BaseExceptionGroup):
        rest = raised.subgroup(lambda e: not isinstance(e, Exception | asyncio.CancelledError))
        if rest is not None:
            raise rest


def _check_storable(run: SagaRun, value: Any) -> None:
    if type(value) in ATOMS:
        return
    try:
        run.codec.dumps(value)
    except Exception as error:
        raise Fault(
            f"what the saga returned cannot be stored ({error!r}). Every step took effect; make "
            f"the saga return a value that can be pickled"
        ) from error


async def _turn_round(saga: Engine, run: SagaRun, raised: BaseException | None) -> Exception:
    """Turn the saga round, unwind it, and return its outcome."""
    end: int = _dbos.reserve().step_id
    await run.await_leftovers()
    if run.turn is None:
        if not run.fresh:
            await _check_passed(run, end)
        run.turn = Turn(end, cause_of(run, raised), _dbos.now(), run.stopped)
        if len(run.stack):
            await run.host.ask(_dbos.mark, run.saga_id, run.turn.attributes())
    else:
        await _check_passed(run, min(end, run.turn.at))
    log.info("Saga %s (%s) turns round: %s", run.saga_id, run.name, run.turn.cause)
    run.stop = None
    run.compensating = True
    undone, not_undone = await _unwind(saga, run, run.turn, end)
    if not_undone:
        cause = run.turn.cause
        return _outcome.compensation_failed(run.saga_id, run.name, cause, undone, not_undone)
    return _outcome.failed(run.saga_id, run.name, run.turn, undone)


async def _check_passed(run: SagaRun, end: int) -> None:
    _refuse_missed(first_not_passed(await run.rows(), run.drawn, run.passed, end))


async def _check_end(run: SagaRun, end: int) -> None:
    """See that a body that has come to its end has not left recorded steps behind it."""
    _refuse_missed(first_not_passed(await run.rows(), {}, {}, end))


def _refuse_missed(missed: Recorded | None) -> None:
    if missed is not None:
        raise Fault(
            f"the saga's code does not match its history: step {missed.step_id} {missed.name!r} "
            f"is recorded, but this run of the code did not come by it, so what it would undo is "
            f"not all there is to undo. Bring back the code the saga began with, or use "
            f"DBOS.patch for the change"
        )


async def _unwind(
    saga: Engine, run: SagaRun, turn: Turn, drawn: int
) -> tuple[list[StepRef], list[NotUndone]]:
    """
    Run the undos, newest first.

    Args:
        saga: Its definition says what to do after an undo that failed for good.
        run: This execution.
        turn: Where it turned round.
        drawn: The greatest step ID drawn so far.
    """
    rows = [] if run.fresh else await run.rows()
    recorded = settled_undos(rows, run.retries, run.resolved)
    floor = max([turn.at, drawn, *(r.step_id for r in rows)])
    failed_before = undo_outcomes(rows).keys()
    undone: list[StepRef] = []
    not_undone: list[NotUndone] = []
    for step_id, compensation in run.stack.newest_first():
        if not_undone and saga.undo_failure == "halt":
            not_undone.append(NotUndone(step_id, compensation.name, None))
            continue
        before = recorded.get(step_id)
        again = run.retries if step_id in failed_before else 0
        name = undo_name(step_id, compensation.name, again)
        try:
            if before is None:
                reservation = _dbos.reserve()
                while reservation.step_id <= floor:
                    reservation = _dbos.reserve()
                await undo(run, reservation, name, step_id, compensation)
            elif before.failed:
                raise await _recorded_error(run, before.step_id)
        except Exception as error:
            told = failure_of(error, compensation.name, step_id)
            text = told.traceback or format_traceback(error)
            failure = clean(dataclasses.replace(told, traceback=text))
            log.error("Saga %s: %s failed for good: %s", run.saga_id, name, failure.message)
            not_undone.append(NotUndone(step_id, compensation.name, failure))
        else:
            undone.append(StepRef(step_id, compensation.name))
    return undone, not_undone


async def _recorded_error(run: SagaRun, row_id: int) -> Exception:
    for row in await run.host.ask(_dbos.list_steps, run.saga_id):
        if row["function_id"] == row_id and isinstance(row["error"], Exception):
            return row["error"]
    raise Fault(f"the recorded error of step {row_id} can no longer be read")


async def _park(run: SagaRun, fault: Fault, raised: BaseException | None) -> NoReturn:
    """Mark the saga, then have DBOS cancel it: so it keeps its messages and can be resumed."""
    log.error("Saga %s (%s) is parked: %s", run.saga_id, run.name, fault.reason)
    try:
        parked = Parked(fault.reason, _dbos.now(), fault.step_id, fault.step)
        await run.host.ask(_dbos.mark, run.saga_id, parked.attributes())
        await run.host.ask(_dbos.cancel, run.saga_id)
    except Exception as error:
        # Left as it is, it is taken up again at the next start, and parked then.
        log.error("Saga %s could not be parked: %r", run.saga_id, error)
        raise Interrupted(str(error)) from error
    raise _dbos.LOST[0](f"Saga {run.saga_id} is parked: {describe(fault)}") from raised
