"""The messages of the library's own that travel between processes. Pure."""

from __future__ import annotations

from typing import Any

KIND = "__sagas__"
"""The key that tells a message of the library's own from an application's."""

NONE = {KIND: "none"}
"""Stands for None, which `DBOS.recv` returns where no message came."""

SENTINEL = "sentinel"
"""The kind of what ends a wait."""

RESOLVED = "resolved"
"""The kind of what is recorded of an undo that a person has done."""


def kind(message: Any) -> str | None:
    """What kind of message of the library's own this is; None where it is an application's."""
    found = message.get(KIND) if isinstance(message, dict) else None
    return found if isinstance(found, str) else None
