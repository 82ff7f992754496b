"""What is public, and what of DBOS's errors we know."""

from __future__ import annotations

import inspect
import pickle
from types import ModuleType
from typing import Any

import pytest
from dbos import error as dbos_error

import sagas
import steps

SAGAS = [
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

STEPS = [
    "NOT_DONE",
    "NonRetryableError",
    "NotDone",
    "OutcomeUnknownError",
    "RetriesExhaustedError",
    "RetryPolicy",
    "Step",
    "StepDefinitionError",
    "StepError",
    "StepFailedError",
    "StepTimeoutError",
    "idempotency_key",
    "receive",
    "receive_async",
    "sleep",
    "sleep_async",
    "step",
]

ERRORS_OF_DBOS = {
    # An execution has lost its saga: it ends, and nothing is undone by it.
    "DBOSWorkflowCancelledError": "lost",
    "DBOSWorkflowConflictIDError": "lost",
    # A replay does not match the history: the saga is parked.
    "DBOSUnexpectedStepError": "mismatch",
    "DBOSStepNondeterminismError": "mismatch",
    "DBOSPatchNondeterminismError": "mismatch",
    # Of a workflow that was waited for: the wait goes on until the saga's end state is known.
    "DBOSAwaitedWorkflowCancelledError": "awaited",
    "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded": "awaited",
    # At a start: the ID is in use, or the queue holds one of this deduplication ID.
    "DBOSWorkflowIDInUseError": "start",
    "DBOSQueueDeduplicatedError": "start",
    "DBOSConflictingWorkflowError": "passes",
    # At the launch.
    "DBOSInitializationError": "launch",
    # DBOS ends or leaves the workflow by itself: it reads as PARKED.
    "MaxRecoveryAttemptsExceededError": "status",
    "DBOSWorkflowFunctionNotFoundError": "status",
    "DBOSRecoveryError": "status",
    # Raised by what a body or a step calls of DBOS directly: failures like any other.
    "DBOSMaxStepRetriesExceeded": "passes",
    "DBOSStepTimeoutError": "passes",
    "DBOSNonExistentWorkflowError": "passes",
    "DBOSNotAuthorizedError": "passes",
    "DBOSQueryTimeoutError": "passes",
    "DBOSStreamTimeoutError": "passes",
    "DBOSStreamNondeterminismError": "passes",
    # Bases.
    "DBOSException": "base",
    "DBOSBaseException": "base",
}
"""Every exception class of `dbos.error`, and how it is treated here."""

PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in (steps, sagas)
    for name in package.__all__
]


def test_the_exports_are_pinned() -> None:
    """Nothing becomes public, or stops being so, by accident."""
    assert sorted(sagas.__all__) == SAGAS
    assert sorted(steps.__all__) == STEPS


@pytest.mark.parametrize("package", [sagas, steps], ids=lambda p: p.__name__)
def test_exports_are_sorted_and_unique(package: ModuleType) -> None:
    """The list of exports reads like an index."""
    assert list(package.__all__) == sorted(set(package.__all__))


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_everything_public_is_documented(package: ModuleType, name: str) -> None:
    """Every public class and function has a docstring of its own."""
    item = getattr(package, name)
    assert item.__doc__
    # A dataclass without a docstring gets its signature for one.
    assert not item.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_methods_are_documented(package: ModuleType, name: str) -> None:
    """Every public method and property of a public class has a docstring."""
    item = getattr(package, name)
    if isinstance(item, type):
        members = [(n, m) for n, m in vars(item).items() if not n.startswith("_")]
        bare = [
            n
            for n, m in members
            if (inspect.isfunction(m) or isinstance(m, property | staticmethod | classmethod))
            and not m.__doc__
        ]
        assert bare == []


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_classes_belong_to_their_package(package: ModuleType, name: str) -> None:
    """Classes are stored, and shown, under the name by which users import them."""
    item = getattr(package, name)
    if isinstance(item, type):
        assert item.__module__ == package.__name__
        assert pickle.loads(pickle.dumps(item)) is item


@pytest.mark.parametrize("package", [sagas, steps], ids=lambda p: p.__name__)
def test_no_public_name_is_missing(package: ModuleType) -> None:
    """What the package defines without an underscore is exported, or is a module."""
    names = {
        n
        for n, item in vars(package).items()
        if not n.startswith("_") and not isinstance(item, ModuleType)
    }
    assert names - set(package.__all__) == set()


def _dbos_errors() -> dict[str, Any]:
    return {
        name: item
        for name, item in vars(dbos_error).items()
        if isinstance(item, type)
        and issubclass(item, BaseException)
        and item.__module__ == dbos_error.__name__
    }


def test_every_error_of_dbos_is_known() -> None:
    """When a release of DBOS gains an error, somebody has to decide what it means for a saga."""
    assert set(_dbos_errors()) == set(ERRORS_OF_DBOS)


def test_errors_of_dbos_are_treated_as_listed() -> None:
    """The adapter groups DBOS's errors as the list above says."""
    from sagas import _dbos

    groups = {
        "lost": set(_dbos.LOST),
        "mismatch": set(_dbos.MISMATCH),
        "awaited": set(_dbos.AwaitedEnd),
        "start": {_dbos.InUse, _dbos.Deduplicated},
    }
    listed = {
        kind: {cls for name, cls in _dbos_errors().items() if ERRORS_OF_DBOS[name] == kind}
        for kind in groups
    }
    assert listed == groups


def test_only_what_is_control_flow_is_no_exception() -> None:
    """Of DBOS's errors exactly those that end an execution cannot be caught by accident."""
    control = {name for name, cls in _dbos_errors().items() if not issubclass(cls, Exception)} - {
        "DBOSBaseException"
    }
    assert control == {name for name, kind in ERRORS_OF_DBOS.items() if kind == "lost"}
