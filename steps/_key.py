"""The idempotency key of the step, or undo, that is running here."""

from __future__ import annotations

import uuid
from contextvars import Token

from ._errors import StepError
from .abc import current_key


def idempotency_key() -> str:
    """
    The key of the step, or undo, that is running here: `"{saga_id}:{step_id}"`.

    It is the same in every attempt, after every crash, and in the probe and the undo of that
    step. Hand it to whatever the step calls, so that a second attempt is recognised. In a step
    that is called as a plain function it is a new one for each call.

    Raises:
        StepError: No step is running here.
    """
    key = current_key.get()
    if key is None:
        raise StepError(
            "idempotency_key() was called outside a step: only a step, its probe or its undo has "
            "a key."
        )
    return key


class PlainKey:
    """A key of its own for a step that is called as a plain function."""

    def __enter__(self) -> None:
        self._token: Token[str | None] | None = None
        if current_key.get() is None:
            self._token = current_key.set(f"plain-call:{uuid.uuid4()}")

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            current_key.reset(self._token)
