"""Figures as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = Path(__file__).parent / "results"

Row = dict[str, Any]


@dataclass(slots=True)
class Report:
    """The rows of one benchmark."""

    name: str
    columns: tuple[str, ...]
    """Which fields of a row the table shows."""
    rows: list[Row] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Keep a row, and say at once that there is one."""
        self.rows.append(row)
        cells = ", ".join(f"{k} {_cell(row.get(k))}" for k in self.columns)
        print(f"  {self.name}: {cells}", file=sys.stderr, flush=True)

    def table(self) -> str:
        """The rows, aligned."""
        cells = [list(self.columns)] + [[_cell(r.get(c)) for c in self.columns] for r in self.rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.columns))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def _machine() -> Row:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "dbos": version("dbos"),
        "sqlalchemy": version("sqlalchemy"),
        "psycopg": version("psycopg"),
        "sqlite": sqlite3.sqlite_version,
    }


def write(reports: Sequence[Report], path: Path | None) -> Path:
    """Write all reports into one JSON file; default: a new one under `benchmarks/results`."""
    if path is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = DEFAULT_FOLDER / f"{stamp}-{'-'.join(r.name for r in reports)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": _machine(), "benchmarks": {r.name: r.rows for r in reports}}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
