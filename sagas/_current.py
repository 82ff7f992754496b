"""What a saga's body asks of the saga it is in: `current`, `add_compensation`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from steps.abc import current_key, current_recorder

from . import _dbos
from ._context import SagaRun
from ._errors import SagaUsageError


@dataclass(frozen=True, slots=True)
class CurrentSaga:
    """The saga that is running here."""

    saga_id: str
    name: str
    is_compensating: bool
    """Whether it is being undone: True in an undo."""
    deadline: datetime | None = None
    """When it turns round; None where it has no time limit."""


def _run_here(what: str) -> SagaRun:
    run = current_recorder.get()
    if not isinstance(run, SagaRun) or run.saga_id != _dbos.workflow_id_or(run.saga_id):
        raise SagaUsageError(f"{what} was called outside a saga.")
    return run


def current() -> CurrentSaga:
    """
    The saga that is running here: in its body, in a step, or in an undo.

    Raises:
        SagaUsageError: There is none.
    """
    run = _run_here("current()")
    deadline = None if run.deadline is None else datetime.fromtimestamp(run.deadline, UTC)
    return CurrentSaga(run.saga_id, run.name, run.compensating, deadline)


def add_compensation(fn: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """
    Push an undo by hand: for what is done by a DBOS step or a library, not by a `@step`.

    It is run in its place in the order, as `fn(*args, **kwargs)` with copies of the arguments as
    they are now, in a step of its own with `idempotency_key()`, and retried for ever with the
    default policy of undos (raise `NonRetryableError` to give up). Push it *before* the call
    that may need it, where the undo can find out whether there is something to undo; pushed
    after it, a crash between the two leaves the effect to the replay of that call.

    Args:
        fn: The undo; in an async saga it may be async.

    Durability:
        Nothing is written: the replayed body pushes it again. It costs a step ID, no row.

    Raises:
        SagaUsageError: No saga's body is running here.
    """
    if not callable(fn):
        raise SagaUsageError(f"add_compensation takes a function and its arguments, not {fn!r}.")
    run = _run_here("add_compensation()")
    try:
        inspect.signature(fn).bind(*args, **kwargs)
    except TypeError as error:
        raise SagaUsageError(
            f"add_compensation() was given arguments that do not fit {fn!r}: {error}."
        ) from error
    except ValueError:
        pass  # a builtin that does not tell its parameters
    if current_key.get() is not None or _dbos.in_step():
        raise SagaUsageError(
            "add_compensation() was called in a step. A step's undo is given to @step(undo=...); "
            "call add_compensation() in the saga's body."
        )
    run.add_compensation(fn, args, kwargs)
