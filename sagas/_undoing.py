"""How a running saga runs one undo."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steps._timeout import limited
from steps.abc import Compensation, StepCall

from . import _settings
from ._control import Fault
from ._flight import InFlight
from ._messages import KIND, RESOLVED
from ._performing import ByHand, attempts, go_on, keep_refused, once, struggle_no_more
from ._sorting import sort_out
from ._verdict import Progress

if TYPE_CHECKING:
    from ._context import SagaRun


async def undo(run: SagaRun, reservation: Any, name: str, step_id: int, what: Compensation) -> None:
    """
    Run one undo as a step of its own.

    Raises:
        Exception: It failed for good, and that is recorded.
        Fault: The machinery failed.
    """
    progress = Progress()
    call = StepCall(name, what.undo, str, what.is_async, what.retry, None)

    async def conduct() -> Any:
        flight = InFlight(name, datetime.now(UTC), settling=True)
        try:
            return await attempts(
                run, step_id, call, functools.partial(_undo_once, run, name, what), flight, before
            )
        except ByHand:
            await struggle_no_more(run)
            return by_hand(run, step_id)

    before = functools.partial(go_on, run, step_id)

    async def body() -> Any:
        progress.invoked = True
        return await once(run, 0, name, progress, conduct)

    try:
        await run.host.run(reservation, name, body)
    except BaseException as error:
        keep_refused(run, 0, name, error, progress)
        await sort_out(run, error, reservation.step_id, name, progress)
        raise


def by_hand(run: SagaRun, step_id: int) -> dict[str, Any]:
    """What is recorded of an undo that a person has done."""
    resolution = run.resolved[step_id]
    return {KIND: RESOLVED, "note": resolution.note, "by": resolution.by}


async def _undo_once(run: SagaRun, name: str, what: Compensation) -> None:
    async def limit(fn: Callable[[], Any], is_async: bool) -> Any:
        return await limited(
            run.host.mode,
            fn,
            is_async,
            name=name,
            timeout=what.timeout,
            grace=min(what.timeout, _settings.grace()),
        )

    result = await limit(what.undo, what.is_async)
    if not inspect.isawaitable(result):
        return
    if run.is_async:  # a lambda around an async function, say
        await limit(lambda: result, True)
        return
    if inspect.iscoroutine(result):
        result.close()
    raise Fault(
        f"{name} returned an awaitable, which a sync saga cannot await, so nothing was "
        f"undone. Make the undo a plain function"
    )
