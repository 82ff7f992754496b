"""Steps: functions whose completed calls DBOS records and a saga can undo."""

from ._errors import (
    NonRetryableError,
    OutcomeUnknownError,
    RetriesExhaustedError,
    StepDefinitionError,
    StepError,
    StepFailedError,
    StepTimeoutError,
)
from ._policy import RetryPolicy
from ._step import Step, idempotency_key, step

__all__ = [
    "NonRetryableError",
    "OutcomeUnknownError",
    "RetriesExhaustedError",
    "RetryPolicy",
    "Step",
    "StepDefinitionError",
    "StepError",
    "StepFailedError",
    "StepTimeoutError",
    "idempotency_key",
    "step",
]
