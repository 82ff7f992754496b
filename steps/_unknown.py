"""
Unknown outcomes: what a step may say of a call that may or may not have taken effect.

`undo_when` and a probe are the two ways to say it; `NOT_DONE` is the answer of a probe that found
nothing.
"""

from __future__ import annotations

from typing import Any, Literal, final

from ._errors import StepDefinitionError

UndoWhen = Literal["completed", "attempted"]
"""Which calls of a step are undone."""


@final
class NotDone:
    """The class of `NOT_DONE`, for annotations: `def find(order: Order) -> Receipt | NotDone`."""

    __slots__ = ()

    def __new__(cls) -> NotDone:
        return NOT_DONE

    def __repr__(self) -> str:
        return "NOT_DONE"

    def __reduce__(self) -> str:
        return "NOT_DONE"  # stored by name, so that it comes back as this very object


NOT_DONE = object.__new__(NotDone)
"""What a probe returns where the step did not happen. None would be a result like any other."""


def checked_undo_when(value: Any, step_name: str) -> UndoWhen | None:
    """
    `value`, if it can be given as `undo_when`; None where it was not given.

    Raises:
        StepDefinitionError: It is something else.
    """
    if value is None or (isinstance(value, str) and value in ("completed", "attempted")):
        return value  # type: ignore[return-value]
    raise StepDefinitionError(
        f'undo_when of step {step_name!r} must be "completed" (only completed calls are undone) or '
        f'"attempted" (every call that was begun is), not {value!r}.'
    )


def check_choice(
    step_name: str,
    *,
    timeout: float | None,
    undo: object | None,
    undo_when: UndoWhen | None,
    probe: object | None,
) -> None:
    """
    See to it that a step says once, and only once, what an unknown outcome means.

    Args:
        step_name: For messages.
        timeout: The limit of an attempt, in seconds.
        undo: The step's undo, or None.
        undo_when: As it was given.
        probe: The step's probe, or None.

    Raises:
        StepDefinitionError: It says it twice, or it has a limit and an undo and does not say it.
    """
    if undo_when is not None and probe is not None:
        raise StepDefinitionError(
            f"Step {step_name!r} has a probe and undo_when={undo_when!r}. Both say what an unknown "
            f"outcome means: a probe finds out, undo_when decides without. Give one of them."
        )
    if timeout is None or undo is None or undo_when is not None or probe is not None:
        return
    raise StepDefinitionError(
        f"Step {step_name!r} has a timeout and an undo, and does not say what is to be done about "
        f"a call that ran out of time: it may have taken effect. Give one of these three:\n"
        f"- probe=<function>, or a function below @<step>.probe and above the undo: it gets the "
        f"step's arguments and returns the result if the step happened, NOT_DONE if not. The "
        f"surest.\n"
        f'- undo_when="attempted": the undo runs for every call that was begun, with None for the '
        f"result where there is none, and finds out by idempotency_key() what there is to undo.\n"
        f'- undo_when="completed": a call that ran out of time counts as not done, and is not '
        f"undone. Right where the body has no effect once its time is up."
    )
