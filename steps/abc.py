"""
The port between steps and whatever records them.

A step does not know sagas. It hands its call to the recorder in `current_recorder`; a saga
run is one. `Compensation` is what the recorder keeps of a completed step.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from ._policy import FOR_EVER, UNDO_TIMEOUT, RetryPolicy


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step, as its recorder sees it."""

    name: str
    """The step's name: what DBOS records it under."""
    body: Callable[[], Any]
    """The user's function with its arguments bound."""
    fingerprint: Callable[[], str]
    """Tells this call from others of the same step, by its arguments."""
    is_async: bool
    """Whether `body` returns an awaitable."""
    retry: RetryPolicy
    """How often to try `body`."""
    undo: Callable[[Any], Compensation] | None
    """
    Given the step's result, what undoes it; None where nothing does.

    Where an attempted call is undone too, the result may be None: see `attempted`.
    """
    timeout: float | None = None
    """Seconds that one attempt of `body` may take; None: no limit."""
    attempted: bool = False
    """Whether every call that was begun is to be undone, with None where there is no result."""
    probe: Callable[[], Any] | None = None
    """
    The probe with the very arguments of the call: it returns the result if the step happened, and
    `NOT_DONE` if not. None where the step has none.
    """
    probe_is_async: bool = False
    """Whether `probe` returns an awaitable."""
    undo_retry: RetryPolicy = FOR_EVER
    """How often to try the undo, or the probe."""
    undo_timeout: float = UNDO_TIMEOUT
    """Seconds that one attempt of the undo, or of the probe, may take."""


@dataclass(frozen=True, slots=True)
class Retried:
    """The recorded result of a step that needed several attempts, or ran beside others."""

    result: Any
    attempts: int
    call: str | None = None
    """The fingerprint of its arguments, where it ran in a branch of a concurrent saga."""


@dataclass(frozen=True, slots=True)
class Compensation:
    """One undo with everything it needs: what was recorded of a completed step."""

    name: str
    """The step's name."""
    undo: Callable[[], Any]
    """The undo with its arguments bound: copies, as they were when the step completed."""
    is_async: bool = False
    """Whether `undo` returns an awaitable."""
    retry: RetryPolicy = FOR_EVER
    """How often to try it."""
    timeout: float = UNDO_TIMEOUT
    """Seconds that one attempt may take."""


class CompensationRecorder(Protocol):
    """A running saga, as its steps see it."""

    @property
    def saga_id(self) -> str:
        """The DBOS workflow ID."""
        ...

    def call(self, call: StepCall) -> Any:
        """Run a step of a sync saga, or return its recorded outcome."""
        ...

    def call_async(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Reserve a step of an async saga now; the coroutine runs it or returns its outcome."""
        ...

    def wait(self, topic: str | None, seconds: float | None) -> Any:
        """Wait in a sync saga for a message on a topic; without one, for the time to pass."""
        ...

    def wait_async(self, topic: str | None, seconds: float | None) -> Coroutine[Any, Any, Any]:
        """`wait`, in an async saga."""
        ...


current_recorder: ContextVar[CompensationRecorder | None] = ContextVar(
    "sagas_recorder", default=None
)
"""The saga whose body is running here."""

current_key: ContextVar[str | None] = ContextVar("sagas_key", default=None)
"""The idempotency key of the step or undo whose body is running here."""
