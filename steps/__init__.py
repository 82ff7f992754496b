"""Steps: functions whose completed calls DBOS records and a saga can undo."""

from ._decorator import step
from ._errors import (
    NonRetryableError,
    OutcomeUnknownError,
    RetriesExhaustedError,
    StepDefinitionError,
    StepError,
    StepFailedError,
    StepTimeoutError,
)
from ._key import idempotency_key
from ._policy import RetryPolicy
from ._step import Step
from ._unknown import NOT_DONE, NotDone
from ._wait import receive, receive_async, sleep, sleep_async

__all__ = [
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

# Errors and records are stored by this name, so that a module of ours can be moved or renamed.
for _public in [globals()[_name] for _name in __all__]:
    if isinstance(_public, type):
        _public.__module__ = __name__
