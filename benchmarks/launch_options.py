"""What `launch` can be told to be faster without losing anything: each option beside none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from .application import Application
from .databases import BACKENDS, Backend, Databases, config
from .figures import Round, compare
from .report import Report
from .rounds import Case

COLUMNS = ("database", "option", "way", "ours", "theirs", "ratio", "low", "high", "cpu_ratio")
"""`ours` is with the option, `theirs` as DBOS comes."""

CASES = (
    Case("one at a time", "success", False, 12),
    Case("in flight", "success", False, 64),
)


@dataclass(frozen=True, slots=True)
class Option:
    """A way to launch."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    wal: bool = False


NONE = Option("none")

OPTIONS: dict[Backend, tuple[Option, ...]] = {
    "sqlite": (
        Option("WAL", wal=True),
        Option("pool of 2", {"sys_db_pool_size": 2}),
        Option("WAL, pool of 2", {"sys_db_pool_size": 2}, wal=True),
        Option("WAL, pool of 4", {"sys_db_pool_size": 4}, wal=True),
    ),
    "postgres": (
        Option("no pre-ping", {"db_engine_kwargs": {"pool_pre_ping": False}}),
        Option("LIFO pool", {"db_engine_kwargs": {"pool_use_lifo": True}}),
        Option(
            "no pre-ping, LIFO pool",
            {"db_engine_kwargs": {"pool_pre_ping": False, "pool_use_lifo": True}},
        ),
        Option(
            "no pre-ping, pool of 8",
            {"db_engine_kwargs": {"pool_pre_ping": False}, "sys_db_pool_size": 8},
        ),
        Option(
            "statements prepared at their second use",
            {
                "db_engine_kwargs": {
                    "connect_args": {"application_name": "dbos_transact", "prepare_threshold": 1}
                }
            },
        ),
    ),
}


def run(databases: Databases, *, quick: bool) -> Report:
    """Each option in an application of its own, in turn with one that has none."""
    report = Report("launch-options", COLUMNS)
    for backend in BACKENDS:
        _measure(report, databases, backend, rounds=5 if quick else 30)
    return report


def _measure(report: Report, databases: Databases, backend: Backend, rounds: int) -> None:
    options = (NONE, *OPTIONS[backend])
    with contextlib.ExitStack() as stack:
        applications = {
            option.name: stack.enter_context(
                Application(config(databases.make(backend, wal=option.wal), **option.changes))
            )
            for option in options
        }
        for case in CASES:
            measured = _in_turn(applications, case, rounds)
            for option in options[1:]:
                found = compare(measured[option.name], measured[NONE.name])
                report.add(database=backend, option=option.name, way=case.way, **found.as_dict())


def _in_turn(
    applications: dict[str, Application], case: Case, rounds: int
) -> dict[str, list[Round]]:
    names = list(applications)
    for name in names:
        applications[name].round(replace(case, count=min(case.count, 16)), "saga")
    measured: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            measured[name].append(applications[name].round(case, "saga"))
    return measured
