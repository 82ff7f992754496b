"""The messages of the library's own that travel between processes. Pure."""

from __future__ import annotations

KIND = "__sagas__"
"""The key that tells a message of the library's own from an application's."""

NONE = "none"
"""A message that is None, which DBOS cannot tell from none at all."""

SENTINEL = "sentinel"
"""What ends a wait."""

RESOLVED = "resolved"
"""What is recorded of an undo that a person has done."""
