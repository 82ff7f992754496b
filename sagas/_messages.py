"""How a message is put where DBOS would take it for none. Pure."""

from __future__ import annotations

from typing import Final

NONE: Final = {"__sagas__": "none"}
"""Stands for None, which `DBOS.recv` returns where no message came."""
