"""What is running of a saga at the moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class InFlight:
    """The body of a step or an undo that is running in this process."""

    name: str
    since: datetime
    failed: int = 0
    """How many attempts have failed."""
    error: Exception | None = None
    """What the last of them failed with."""
    unknown: bool = False
    """Whether one of them may have taken effect all the same."""
    unsure: bool = False
    """Whether one of them said so itself."""
    settling: bool = False
    """Whether it is to learn what there is to undo, whatever stops the saga."""
    reported: int = 0
    """How many attempts had failed when its saga was last marked as needing attention for it."""
