"""
Trials: a victim that is killed, started again, and audited once its saga has ended.

The processes are forked from a server that has imported everything and begun nothing, so each is
a fresh program without the second that its imports would take.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from . import victim
from .ledger import Entry, FileLedger, first_undone, keys_by_call, standing
from .victim import STEPS, Orders, Report

ROOT = Path(__file__).parents[2]
STOPS = {
    "dbos-cancel": "was cancelled in DBOS",
    "request": "cancelled: no stock",
    "deadline": "ran past its deadline: it did not end within 2 s",
    "dbos-timeout": "ran past the timeout of its DBOS workflow",
}
"""The plans by which a saga is stopped from outside, and what it then says."""

TIMEOUT = 90.0
"""Seconds that a process may take."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pytest.__main__", "tests.support.victim"])

_one_at_a_time = threading.Lock()
"""`Process.start` also looks at the other processes' exit codes, which can be read only once."""


def _start_server() -> None:
    """Start the server from which processes are forked; with the code that is tested here."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@dataclass(frozen=True, slots=True)
class Trial:
    """One saga and the points at which its processes are killed, one after the other."""

    variant: str
    plan: str
    kills: tuple[str, ...] = ()
    via: str = "start"

    def __str__(self) -> str:
        return f"{self.variant}-{self.plan}-{self.via} killed at {list(self.kills)}"


@dataclass(slots=True)
class Evidence:
    """What a trial left behind."""

    trial: Trial
    saga_id: str
    killed: int
    """How many processes were killed."""
    report: Report
    entries: list[Entry]
    points: list[list[str]] = field(default_factory=list)
    """The points that each process came by."""


class Laboratory:
    """
    Runs trials, each on a database (SQLite) or under an application's name (PostgreSQL) of its
    own, several at a time.
    """

    def __init__(self, url: str, folder: Path, *, fork: bool = True) -> None:
        self._url = url
        self._folder = folder / "trials"
        self._folder.mkdir()
        self._count = 0
        _start_server()
        self._fork = fork
        if url.startswith("sqlite"):
            self._template = folder / "template.sqlite"
            shutil.copy(url.removeprefix("sqlite:///"), self._template)

    def run(self, trials: list[Trial], *, at_once: int = 12) -> list[Evidence]:
        """The evidence of all trials, in their order."""
        numbered = [(trial, self._count + i) for i, trial in enumerate(trials)]
        self._count += len(trials)
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda pair: self._run_one(*pair), numbered))

    def _run_one(self, trial: Trial, number: int) -> Evidence:
        name = f"trial-{number}"
        folder = self._folder / name
        folder.mkdir()
        url = self._url
        if url.startswith("sqlite"):
            shutil.copy(self._template, folder / "system.sqlite")
            url = f"sqlite:///{folder / 'system.sqlite'}"
        orders = Orders(str(folder), url, name, name, trial.variant, trial.plan, via=trial.via)
        points: list[list[str]] = []
        killed = 0
        for kill_at in (*trial.kills, None):
            (folder / "points").write_text("")
            exitcode = self._process(replace(orders, kill_at=kill_at), f"{trial}")
            points.append((folder / "points").read_text().splitlines())
            if exitcode == -signal.SIGKILL:
                killed += 1
            elif exitcode == 0:
                break  # it came to its end without passing the point
            else:
                output = (folder / "output").read_text()
                raise AssertionError(f"{trial}: exit code {exitcode}: {output}")
        report = json.loads((folder / "report").read_text())
        report["rows"] = [tuple(row) for row in report["rows"]]
        entries = FileLedger(folder / "ledger").entries()
        return Evidence(trial, name, killed, Report(**report), entries, points)

    def _process(self, orders: Orders, what: str) -> int:
        if not self._fork:
            command = [sys.executable, "-m", "tests.support.victim", json.dumps(asdict(orders))]
            return subprocess.run(command, cwd=ROOT, timeout=TIMEOUT, check=False).returncode
        return run_forked(victim.run_as_process, orders, what)


def run_forked(program: Callable[[Any], None], orders: Any, what: str) -> int:
    """Run a program in a process of its own, forked from the server; its exit code."""
    _start_server()
    process = _server.Process(target=program, args=(orders,))
    with _one_at_a_time:
        process.start()
    ended = wait([process.sentinel], TIMEOUT)
    with _one_at_a_time:
        if not ended:
            process.kill()
        process.join()
        exitcode = process.exitcode
        process.close()
    assert ended, f"{what}: no end within {TIMEOUT} s"
    assert exitcode is not None
    return exitcode


def plain(name: str) -> str:
    """`a` of `victim.async.a`."""
    return name.rpartition(".")[2]


def complaints(evidence: Evidence) -> list[str]:
    """What is wrong with the end of a trial; nothing where every promise was kept."""
    trial, report, entries = evidence.trial, evidence.report, evidence.entries
    wrong: list[str] = []

    def check(holds: bool, what: str) -> None:
        if not holds:
            wrong.append(f"{trial}: {what}; {report}")

    stopped = trial.plan in STOPS
    # After a death between them, d may have been begun: it is settled, and undone as well.
    settled = stopped and any(plain(n) == "d" and not bad for _, n, bad in report.rows)
    failing = trial.plan in ("fail", "stubborn") or (stopped and not settled)
    # An error of the body's own that does not come again counts once the turn is written down.
    vanished = trial.plan == "vanish" and trial.kills[:1] == ("mark:before",)
    # A deadline keeps steps from beginning; where d was settled, none was left to begin.
    completes = trial.plan == "complete" or vanished or (trial.plan == "deadline" and settled)
    effective = STEPS[:-1] if failing else STEPS
    keys = {name: f"{evidence.saga_id}:{i}" for i, name in enumerate(STEPS, start=1)}

    check(report.status == ("COMPLETED" if completes else "FAILED"), "wrong status")
    for (kind, name), used in keys_by_call(entries).items():
        check(used == {keys[name]}, f"{kind} {name} was tried under {sorted(used)}")
    done = {e.key for e in entries if e.done and e.kind == "step"}
    check(done == {keys[n] for n in effective}, f"effects of {sorted(done)}")
    left = standing(entries)
    check(sorted(left) == (list(STEPS) if completes else []), f"{left} stand")
    steps = [row for row in report.rows if not row[1].startswith("undo:")]
    check(
        [(i, plain(n), bad) for i, n, bad in steps]
        == [(i, n, failing and n == "d") for i, n in enumerate(STEPS, start=1)],
        "wrong steps in the history",
    )
    undos = [row for row in report.rows if row[1].startswith("undo:")]
    backwards = [] if completes else [(STEPS.index(n) + 1, n) for n in reversed(effective)]
    check(
        [(int(n.split(":")[1]), plain(n), bad) for _, n, bad in undos]
        == [(i, n, False) for i, n in backwards],
        "the history does not show each undo once, newest first",
    )
    check(first_undone(entries) == [keys[n] for _, n in backwards], "undone in another order")
    given = {(e.name, e.note) for e in entries if e.kind == "undo"}
    check(
        given == {(n, f"{n}-result {trial.plan}") for _, n in backwards},
        f"the undos were given {sorted(given)}",
    )
    if completes:
        check(report.result == "done", "wrong result")
    else:
        check(
            [(i, plain(n)) for i, n in report.undone or []] == backwards,
            "the outcome names other steps as undone",
        )
        message = "d is refused" if failing else "this error does not come again"
        check(report.failure == STOPS.get(trial.plan, message), "wrong failure")
    return wrong
