"""Sagas on DBOS: durable workflows whose completed steps are undone when they fail."""

from steps import _step

from . import _running
from ._blocks import pivot, pivot_async, scope
from ._client import SagaClient
from ._current import CurrentSaga, add_compensation, current
from ._errors import (
    CompensationFailedError,
    Failure,
    NotUndone,
    PivotPassedError,
    SagaCancelledError,
    SagaConflictError,
    SagaDefinitionError,
    SagaError,
    SagaFailedError,
    SagaNotFoundError,
    SagaOutcomeError,
    SagaParkedError,
    SagaTerminatedError,
    SagaTimeoutError,
    SagaUsageError,
    StepRef,
)
from ._handle import SagaHandle
from ._history import SagaState, StepRecord
from ._launch import Launched, launch, shutdown, shutdown_async, supervise
from ._marks import AuditEntry
from ._requests import RequestResult
from ._saga import Saga, saga
from ._settings import Supervision
from ._starter import Starter
from ._status import SagaStatus, StepStatus

_step.set_foreign_thread_guard(_running.refuse_thread_of_a_saga)

__all__ = [
    "AuditEntry",
    "CompensationFailedError",
    "CurrentSaga",
    "Failure",
    "Launched",
    "NotUndone",
    "PivotPassedError",
    "RequestResult",
    "Saga",
    "SagaCancelledError",
    "SagaClient",
    "SagaConflictError",
    "SagaDefinitionError",
    "SagaError",
    "SagaFailedError",
    "SagaHandle",
    "SagaNotFoundError",
    "SagaOutcomeError",
    "SagaParkedError",
    "SagaState",
    "SagaStatus",
    "SagaTerminatedError",
    "SagaTimeoutError",
    "SagaUsageError",
    "Starter",
    "StepRecord",
    "StepRef",
    "StepStatus",
    "Supervision",
    "add_compensation",
    "current",
    "launch",
    "pivot",
    "pivot_async",
    "saga",
    "scope",
    "shutdown",
    "shutdown_async",
    "supervise",
]

# Errors and records are stored by this name, so that a module of ours can be moved or renamed.
for _public in [globals()[_name] for _name in __all__]:
    if isinstance(_public, type):
        _public.__module__ = __name__
