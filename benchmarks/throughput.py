"""Sagas a second, beside the same four steps written by hand, in the same process and in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from .application import Application
from .databases import BACKENDS, Backend, Databases, config
from .figures import Comparison, Round, compare
from .report import Report
from .rounds import Case, Outcome, Way
from .sides import SIDES, SideName

TARGETS: dict[tuple[Way, Outcome], float] = {
    ("one at a time", "success"): 0.97,
    ("in flight", "success"): 0.97,
    ("enqueued", "success"): 0.93,
    ("one at a time", "failure"): 1.0,
    ("in flight", "failure"): 1.0,
}
"""What part of the hand-written throughput is aimed at, or more."""

COLUMNS = (
    "database",
    "kind",
    "way",
    "outcome",
    "ours",
    "theirs",
    "ratio",
    "low",
    "high",
    "target",
    "cpu_ratio",
    "our_cpu_ms",
    "their_cpu_ms",
)

COUNTS: dict[Way, int] = {"one at a time": 12, "in flight": 64, "enqueued": 64}
"""Sagas in a round: so many that it is long beside its ends, and short beside the noise."""


def run(databases: Databases, *, quick: bool) -> Report:
    """Every way, on both databases."""
    report = Report("throughput", COLUMNS)
    for backend in BACKENDS:
        for is_async in (False, True):
            _measure(report, databases, backend, is_async, pairs=6 if quick else 40)
    return report


def cases(is_async: bool) -> list[Case]:
    """What is compared; of what is enqueued only the success."""
    return [
        Case(way, outcome, is_async, COUNTS[way])
        for way in get_args(Way)
        for outcome in get_args(Outcome)
        if (way, outcome) in TARGETS
    ]


def _measure(
    report: Report, databases: Databases, backend: Backend, is_async: bool, pairs: int
) -> None:
    with Application(config(databases.make(backend))) as application:
        for case in cases(is_async):
            found = compare_in_turn(application, case, pairs)
            report.add(
                database=backend,
                kind="async" if is_async else "sync",
                way=case.way,
                outcome=case.outcome,
                target=TARGETS[case.way, case.outcome],
                **found.as_dict(),
            )


def compare_in_turn(application: Application, case: Case, pairs: int) -> Comparison:
    """Run a case on either side in turn, each first as often as second."""
    for name in SIDES:
        application.round(replace(case, count=min(case.count, 16)), name)  # warm: pools, caches
    measured: dict[SideName, list[Round]] = {name: [] for name in SIDES}
    for pair in range(pairs):
        for name in SIDES if pair % 2 else SIDES[::-1]:
            measured[name].append(application.round(case, name))
    return compare(measured["saga"], measured["by-hand"])
