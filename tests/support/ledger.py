"""A ledger of effects outside DBOS: what really happened, however often it was tried."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["step", "undo"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger."""

    kind: Kind
    name: str
    """Which step it belongs to."""
    key: str
    """The idempotency key it was made under."""
    done: bool
    """False: an attempt began. True: its effect took place."""
    note: str = ""
    """For an undo: what it was given."""


class FileLedger:
    """Entries in a file that is only ever appended to, each on disk before the next begins."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def append(self, entry: Entry) -> None:
        """Write one entry: a single `write`, so that entries of several threads do not mix."""
        line = json.dumps(asdict(entry)) + "\n"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)

    def entries(self) -> list[Entry]:
        """Everything written so far, in order."""
        if not self._path.exists():
            return []
        return [Entry(**json.loads(line)) for line in self._path.read_text().splitlines()]


def keys_by_call(entries: Iterable[Entry]) -> dict[tuple[Kind, str], set[str]]:
    """The keys under which each step and each undo was tried."""
    keys: dict[tuple[Kind, str], set[str]] = {}
    for entry in entries:
        keys.setdefault((entry.kind, entry.name), set()).add(entry.key)
    return keys


def standing(entries: Iterable[Entry]) -> list[str]:
    """
    The steps whose effect stands, each key counted once, by the order in which they took effect.

    An effect under a key that took effect before is none; one that comes after its own undo
    stands again, as a service that deduplicates by the key cannot know better.
    """
    stands: dict[str, str] = {}
    for entry in entries:
        if not entry.done:
            continue
        if entry.kind == "step":
            stands.setdefault(entry.key, entry.name)
        else:
            stands.pop(entry.key, None)
    return list(stands.values())


def first_undone(entries: Iterable[Entry]) -> list[str]:
    """The keys that were undone, in the order in which each was undone first."""
    return list(dict.fromkeys(e.key for e in entries if e.done and e.kind == "undo"))
