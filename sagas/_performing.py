"""
How a running saga runs one step, or one undo, and what became of it.

Everything that decides happens inside the function that DBOS runs for the step, so only where
there is no checkpoint yet: its outcome is what DBOS records and replays. It first asks whether
the body may begin at all (`_settling.first_move`), then makes the attempts, and then asks what it
means if none succeeded (`_settling.after_failure`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steps._attempts import describe, run_attempts, type_name
from steps._errors import StepFailedError
from steps._policy import ONE_ATTEMPT
from steps._timeout import limited
from steps._unknown import NOT_DONE
from steps.abc import Retried, StepCall, current_key

from . import _dbos, _kept, _settings
from ._control import Fault, TurnRound
from ._flight import InFlight
from ._marks import STRUGGLING
from ._outcome import had_begun, is_refusal, stopped_step
from ._scope import Scope
from ._settling import Move, Verdict, after_failure, first_move, is_unsure, says_nothing
from ._sorting import fault, sort_out
from ._verdict import Progress, check_storable

if TYPE_CHECKING:
    from ._context import SagaRun

log = logging.getLogger("sagas")

_OTHER_CALL = (
    "step {} {!r} was recorded with other arguments than it is called with now: the branches of "
    "the saga came to it in another order. Start branches in a fixed order (asyncio.as_completed "
    "and asyncio.wait have none for bare coroutines), or make each a saga of its own"
)


async def perform(
    run: SagaRun,
    reservation: Any,
    call: StepCall,
    scope: Scope | None,
    fingerprint: str | None = None,
) -> Any:
    """
    Run a step, or return its recorded outcome, and keep its undo.

    Args:
        run: The saga.
        reservation: The step's ID.
        call: The step.
        scope: The block that it is called in.
        fingerprint: Tells the call from others, where it is made in a branch of a concurrent saga.

    Raises:
        Exception: The step failed, and that is recorded.
        Fault: The machinery failed.
        BaseException: This execution is over.
    """
    step_id: int = reservation.step_id
    if run.pivoted:
        call = _retriable(run, call)
    progress = Progress()
    in_doubt = run.is_in_doubt(step_id)

    async def body() -> Any:
        progress.invoked = True
        if run.turn is not None:
            raise TurnRound  # all that began was recorded before the turn: this did not
        result = await once(
            run,
            step_id,
            call.name,
            progress,
            functools.partial(_conduct, run, step_id, call, scope, in_doubt=in_doubt),
        )
        if fingerprint is None:
            return result
        if isinstance(result, Retried):
            return replace(result, call=fingerprint)
        return Retried(result, 1, fingerprint)

    try:
        outcome = await run.host.run(reservation, call.name, body)
    except BaseException as error:
        if keep_refused(run, step_id, call.name, error, progress):
            run.begun.discard(step_id)
        await sort_out(run, error, step_id, call.name, progress)
        if isinstance(error, Exception):
            run.begun.discard(step_id)
        run.heard = run.heard or progress.invoked
        attempted = call.attempted and isinstance(error, Exception) and had_begun(error)
        if attempted and call.undo is not None:
            run.stack.push(step_id, call.undo(None), scope)
        raise
    run.heard = run.heard or progress.invoked
    run.first = run.first and progress.invoked  # an earlier execution has recorded this
    run.begun.discard(step_id)
    result = outcome
    if isinstance(outcome, Retried):
        result = outcome.result
        if outcome.call is not None and outcome.call != fingerprint:
            fault(run, Fault(_OTHER_CALL.format(step_id, call.name)), None)
    if not run.fresh:
        run.passed[step_id] = call.name
    if call.undo is not None:
        run.stack.push(step_id, call.undo(result), scope)
    return result


def _retriable(run: SagaRun, call: StepCall) -> StepCall:
    """A step past the pivot: nothing undoes it, and it is tried until it succeeds."""
    retry = run.retriable if call.retry is ONE_ATTEMPT else call.retry
    return replace(call, retry=retry, undo=None)


async def once(
    run: SagaRun,
    key: int,
    name: str,
    progress: Progress,
    conduct: Callable[[], Coroutine[Any, Any, Any]],
) -> Any:
    """What `conduct` gives, or what it gave an execution whose checkpoint was refused."""
    kept = _kept.take(run.saga_id, key, name, run.age)
    try:
        result = await conduct() if kept is None else kept.get()
    except Exception as error:
        progress.error = error
        raise
    progress.returned = True
    progress.result = result
    return result


def keep_refused(
    run: SagaRun, key: int, name: str, error: BaseException, progress: Progress
) -> bool:
    """Keep what DBOS refused to record; whether there was anything to keep."""
    if not isinstance(error, _dbos.LOST):
        return False
    if progress.returned:
        _kept.keep(run.saga_id, key, name, _kept.Kept(value=progress.result), run.age)
        return True
    if isinstance(progress.error, Exception) and not is_refusal(progress.error):
        _kept.keep(run.saga_id, key, name, _kept.Kept(error=progress.error), run.age)
        return True
    return False


class ByHand(BaseException):
    """A person has undone the step that is being tried, asked for or undone."""


def go_on(run: SagaRun, step_id: int) -> None:
    run.check()
    if run.is_resolved(step_id):
        raise ByHand


async def _conduct(
    run: SagaRun, step_id: int, call: StepCall, scope: Scope | None, *, in_doubt: bool
) -> Any:
    """
    The outcome of a step that has no checkpoint.

    Raises:
        Exception: The step's failure.
        SagaFailedError: The saga is stopped, and the step is not begun, or not tried again.
        Fault: Nobody can say what became of it.
    """
    try:
        go_on(run, step_id)
        return await _begin(run, step_id, call, scope, in_doubt=in_doubt)
    except ByHand:
        stop = run.stopping(scope)
        if stop is not None:
            raise stopped_step(run.saga_id, run.name, stop, began=False) from None
        raise StepFailedError("resolved", run.resolved[step_id].note) from None


async def _begin(
    run: SagaRun, step_id: int, call: StepCall, scope: Scope | None, *, in_doubt: bool
) -> Any:
    stop = run.stopping(scope)
    move = Move.RUN
    if in_doubt or stop is not None:
        move = first_move(
            in_doubt=in_doubt,
            stopping=stop is not None,
            dead_letter=run.dead_letter,
            undoable=call.undo is not None,
            has_probe=call.probe is not None,
            attempted=call.attempted,
        )
    if move is Move.PARK:
        raise Fault(
            f"step {step_id} {call.name!r} was begun again and again, and each time its process "
            f"ended before it did; it is not run once more, so whether it took effect is not "
            f"known. Find out; then `resolve` it if its effect is not there or is undone by hand, "
            f"or `retry` the saga to run it again under the same key",
            step_id,
            call.name,
        )
    if move in (Move.ASK_THEN_RUN, Move.ASK_THEN_REFUSE):
        answer = await _ask(run, step_id, call)
        if answer is not NOT_DONE:
            return answer
    if stop is not None and move in (Move.REFUSE, Move.REFUSE_BEGUN, Move.ASK_THEN_REFUSE):
        began = move is Move.REFUSE_BEGUN
        raise stopped_step(run.saga_id, run.name, stop, began=began)
    return await _try(run, step_id, call, scope, in_doubt=in_doubt, settling=move is Move.SETTLE)


async def _try(
    run: SagaRun,
    step_id: int,
    call: StepCall,
    scope: Scope | None,
    *,
    in_doubt: bool,
    settling: bool,
) -> Any:
    flight = InFlight(call.name, datetime.now(UTC), settling=settling, scope=scope)

    async def attempt() -> Any:
        if run.leftovers:
            await run.await_leftovers()
        run.begun.add(step_id)
        try:
            return await one()
        except Exception as error:
            if not (settling or call.attempted or flight.unknown or says_nothing(error)):
                run.begun.discard(step_id)
            raise

    async def one() -> Any:
        if call.timeout is None:
            return await run.host.mode.call(call.body, call.is_async)
        return await limited(
            run.host.mode,
            call.body,
            call.is_async,
            name=call.name,
            timeout=call.timeout,
            grace=0,
            left_behind=run.leftovers.append,
        )

    def before() -> None:
        go_on(run, step_id)
        stop = None if settling else run.stopping(scope)
        if stop is not None:
            raise stopped_step(run.saga_id, run.name, stop, began=in_doubt or flight.failed > 0)

    try:
        return await attempts(run, step_id, call, attempt, flight, before)
    except Exception as error:
        verdict = after_failure(
            flight.error,
            any_unknown=flight.unknown,
            any_unsure=flight.unsure,
            settling=settling and run.stopping(scope) is not None,
            has_probe=call.probe is not None,
            attempted=call.attempted and call.undo is not None,
        )
        if verdict is Verdict.PARK:
            reason = _unknown(step_id, call.name, flight.error or error)
            raise Fault(reason, step_id, call.name) from error
        if verdict is Verdict.ASK:
            answer = await _ask(run, step_id, call)
            if answer is not NOT_DONE:
                return answer
        if run.pivoted:
            raise Fault(
                f"step {step_id} {call.name!r} gave up, past the pivot, where the saga can only go "
                f"forward: {type_name(error)}: {describe(error)}. Mend what is in its way and "
                f"`retry` the saga"
            ) from error
        raise


def _unknown(step_id: int, name: str, error: Exception) -> str:
    return (
        f"step {step_id} {name!r} does not know whether it took effect: {type_name(error)}: "
        f"{describe(error)}. Find out; then `resolve` it if its effect is not there or is undone "
        f"by hand, or `retry` the saga to run it again under the same key"
    )


async def _ask(run: SagaRun, step_id: int, call: StepCall) -> Any:
    """
    What the step's probe answers: the step's result, or NOT_DONE.

    It is part of settling: exempt from what has stopped the saga, and tried as an undo is.
    """
    probe = call.probe
    assert probe is not None, "there is one to be asked"
    if run.leftovers:
        await run.await_leftovers()
    name = f"probe of {call.name}"
    flight = InFlight(name, datetime.now(UTC), settling=True)

    async def attempt() -> Any:
        return await limited(
            run.host.mode,
            probe,
            call.probe_is_async,
            name=name,
            timeout=call.undo_timeout,
            grace=min(call.undo_timeout, _settings.grace()),
        )

    asked = replace(call, name=name, retry=call.undo_retry)
    try:
        before = functools.partial(go_on, run, step_id)
        answer = await attempts(run, step_id, asked, attempt, flight, before)
    except Exception as error:
        raise Fault(
            f"step {step_id} {call.name!r} may have taken effect, and its probe failed for good: "
            f"{describe(error)}. Mend the probe and `retry` the saga, or `resolve` the step",
            step_id,
            call.name,
        ) from error
    return answer.result if isinstance(answer, Retried) else answer


async def attempts(
    run: SagaRun,
    step_id: int,
    call: StepCall,
    attempt: Callable[[], Coroutine[Any, Any, Any]],
    flight: InFlight,
    before: Callable[[], None],
) -> Any:
    token = current_key.set(f"{run.saga_id}:{step_id}")
    run.in_flight[step_id] = flight

    def failed(count: int, error: Exception) -> None:
        flight.failed, flight.error = count, error
        flight.unknown = flight.unknown or says_nothing(error)
        flight.unsure = flight.unsure or is_unsure(error)
        if run.compensating or flight.settling:
            log.warning("Saga %s: %s failed, attempt %d: %r", run.saga_id, call.name, count, error)

    try:
        result = await run_attempts(
            run.host.mode,
            attempt,
            name=call.name,
            retry=call.retry,
            codec=run.codec,
            before=before,
            failed=failed,
            pause=functools.partial(
                run.pause,
                until=lambda: run.is_resolved(step_id),
                settling=flight.settling,
                scope=flight.scope,
            ),
        )
    finally:
        run.in_flight.pop(step_id, None)
        current_key.reset(token)
    await struggle_no_more(run)
    check_storable(run.codec, step_id, call.name, result)
    return result


async def struggle_no_more(run: SagaRun) -> None:
    if run.struggling:
        run.struggling = False
        await run.host.ask(_dbos.mark, run.saga_id, {STRUGGLING: None})
