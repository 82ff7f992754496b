"""A step in a plain DBOS workflow: recorded, tried again and timed there, but not undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from . import _dbos
from ._attempts import run_attempts
from ._mode import BLOCKING, ON_LOOP
from ._policy import RetryPolicy
from ._timeout import GRACE, limited
from .abc import Retried, current_key


def run_in_workflow(
    workflow_id: str,
    body: Callable[[], Any],
    *,
    name: str,
    is_async: bool,
    retry: RetryPolicy,
    timeout: float | None,
) -> Any:
    """
    Run a step of the workflow that is running here, or return its recorded outcome.

    Args:
        workflow_id: The workflow's.
        body: The user's function with its arguments bound.
        name: What the step is recorded under.
        is_async: Whether `body` returns an awaitable; then this returns one too.
        retry: How often to try it.
        timeout: Seconds that one attempt may take; None: no limit.
    """
    reservation = _dbos.reserve()
    mode = ON_LOOP if is_async else BLOCKING

    async def attempt() -> Any:
        token = current_key.set(f"{workflow_id}:{reservation.step_id}")
        try:
            if timeout is None:
                return await mode.call(body, is_async)
            grace = min(timeout, GRACE)
            return await limited(mode, body, is_async, name=name, timeout=timeout, grace=grace)
        finally:
            current_key.reset(token)

    def attempts() -> Awaitable[Any]:
        return run_attempts(mode, attempt, name=name, retry=retry, codec=_dbos.PICKLE)

    if not is_async:
        return _unwrap(_dbos.run(reservation, name, attempts))

    async def on_loop() -> Any:
        return _unwrap(await _dbos.run_async(reservation, name, attempts))

    return on_loop()


def _unwrap(outcome: Any) -> Any:
    return outcome.result if isinstance(outcome, Retried) else outcome
