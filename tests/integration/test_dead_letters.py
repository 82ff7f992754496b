"""Sagas that kill their process again and again, until DBOS gives them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.deadly import DEATH, Orders, run_as_process
from tests.support.ledger import FileLedger
from tests.support.trial import run_forked

pytestmark = pytest.mark.slow

DEATHS = 2
"""The first execution, and one recovery."""


class Case:
    """One saga that is killed until it is given up, and then looked after."""

    def __init__(self, url: str, folder: Path, policy: str, *, took_effect: bool = False) -> None:
        self._folder = folder
        codes = [self._run(Orders(str(folder), url, policy, lethal=True)) for _ in range(DEATHS)]
        assert codes == [DEATH] * DEATHS, self.output
        assert self._run(Orders(str(folder), url, policy, lethal=True)) == 0, self.output
        assert [e for e in self.ledger if e != "probe"] == ["first", *["second begun"] * DEATHS]
        self._before = len(self.ledger)
        last = Orders(str(folder), url, policy, lethal=False, took_effect=took_effect)
        assert self._run(last) == 0, self.output

    def _run(self, orders: Orders) -> int:
        return run_forked(run_as_process, orders, f"{orders}")

    @property
    def output(self) -> str:
        """What its processes have printed."""
        return (self._folder / "output").read_text()

    @property
    def ledger(self) -> list[str]:
        """What has happened, in order; an undo with what it was given."""
        return [
            f"undo {e.name} {e.note}" if e.kind == "undo" else e.name + " begun" * (not e.done)
            for e in FileLedger(self._folder / "ledger").entries()
        ]

    @property
    def later(self) -> list[str]:
        """What has happened since DBOS gave it up."""
        return self.ledger[self._before :]

    def report(self, name: str = "report") -> Any:
        """How it stood."""
        return json.loads((self._folder / name).read_text())

    def undos(self, name: str = "report") -> list[str]:
        """The undos in its history."""
        return [n for n in self.report(name)["history"] if n.startswith("undo:")]


@pytest.mark.parametrize("took_effect", [True, False])
def test_its_probe_is_asked(database: str, tmp_path: Path, took_effect: bool) -> None:
    """The step is not run again, but undone where its probe finds it; so is the step before it."""
    case = Case(database, tmp_path, "probed", took_effect=took_effect)
    assert case.report()["status"] == "FAILED"
    assert case.later == ["probe", *["undo second found"] * took_effect, "undo first 1"]
    assert case.undos() == [*["undo:2:deadly.probed"] * took_effect, "undo:1:first"]


def test_an_undo_for_attempts_runs(database: str, tmp_path: Path) -> None:
    """The step is not run again; its undo, which finds out by itself, is given None."""
    case = Case(database, tmp_path, "attempted")
    assert case.report()["status"] == "FAILED"
    assert case.later == ["undo second None", "undo first 1"]
    assert case.undos() == ["undo:2:deadly.attempted", "undo:1:first"]


def test_it_is_parked_and_can_be_retried(database: str, tmp_path: Path) -> None:
    """Where nobody can tell, nothing happens until a person says `retry`: then it runs again."""
    case = Case(database, tmp_path, "completed")
    report = case.report()
    assert report["status"] == "PARKED"
    assert "again and again" in report["reason"]
    assert report["steps"] == [["first", "completed"], ["deadly.completed", "unknown"]]
    assert case.undos() == []
    assert case.report("retried")["status"] == "FAILED"
    assert case.later == ["second begun", "second", "undo second 2", "undo first 1"]
    assert case.undos("retried") == ["undo:2:deadly.completed", "undo:1:first"]
