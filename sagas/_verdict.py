"""What became of one step: facts from which the run tells a failure from a fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from steps._attempts import Codec

from ._control import Fault

ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values can always be stored."""


@dataclass(slots=True)
class Progress:
    """How far one step got in this execution."""

    invoked: bool = False
    """There was no checkpoint: DBOS called the step's function."""
    returned: bool = False
    """The body returned; what goes wrong after that is no failure of the step."""
    result: Any = None
    """What the body returned."""
    error: BaseException | None = None
    """What the function raised, for DBOS to record."""


def check_storable(codec: Codec, step_id: int, name: str, result: Any) -> None:
    """
    See that a step's result comes back from the database.

    Raises:
        Fault: It does not.
    """
    if type(result) in ATOMS:
        return
    try:
        codec.loads(codec.dumps(result))
    except Exception as error:
        raise Fault(
            f"what step {step_id} {name!r} returned cannot be stored ({error!r}). The step took "
            f"effect, which the history does not show; make it return a value that can be pickled",
            step_id,
            name,
        ) from error


def is_unseen(task: asyncio.Task[Any], error: BaseException) -> bool:
    """Whether `task` ended with `error`, and nobody has asked it how it ended."""
    unseen = getattr(task, "_log_traceback", False)  # what asyncio itself goes by
    if not task.done() or task.cancelled() or not unseen:
        return False
    return task.exception() is error
