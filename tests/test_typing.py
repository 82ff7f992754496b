"""What type checkers say of right and wrong uses, in a project of a user's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import sagas
import steps

HERE = Path(__file__).parent / "typing"


def _mypy(project: Path) -> str:
    (project / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "accept.py", "reject.py"]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


def _pyright(project: Path) -> str:
    (project / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


CHECKERS: dict[str, tuple[Callable[[Path], str], str]] = {
    "mypy": (_mypy, r"^(\w+)\.py:(\d+): error"),
    "pyright": (_pyright, r"(\w+)\.py:(\d+):\d+ - error"),
}


@pytest.fixture(scope="module", params=CHECKERS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a checker, at its strictest, says of both files in a folder of their own."""
    project = tmp_path_factory.mktemp(request.param)
    for name in ("accept.py", "reject.py"):
        shutil.copy(HERE / name, project)
    return CHECKERS[request.param][0](project)


def _checker(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["report"])


def _errors(report: str, checker: str, file: str) -> dict[int, str]:
    pattern = re.compile(CHECKERS[checker][1])
    found = {}
    for line in report.splitlines():
        match = pattern.search(line)
        if match and match[1] == file:
            found.setdefault(int(match[2]), line)
    return found


def _marked(checker: str) -> set[int]:
    lines = (HERE / "reject.py").read_text().splitlines()
    marks = {n: re.search(r"# wrong(?:: (\w+))?$", line) for n, line in enumerate(lines, 1)}
    return {n for n, mark in marks.items() if mark and mark[1] in (None, checker)}


@pytest.mark.parametrize("package", [sagas, steps], ids=lambda p: p.__name__)
def test_everything_public_is_used(package: ModuleType) -> None:
    """Nothing is exported that the accepted uses do not cover."""
    words = set(re.findall(r"\w+", (HERE / "accept.py").read_text()))
    assert set(package.__all__) - words == set()


@pytest.mark.slow
def test_right_uses_are_accepted(report: str, request: pytest.FixtureRequest) -> None:
    """Right uses of everything public pass at a checker's strictest, with the types they have."""
    assert _errors(report, _checker(request), "accept") == {}


@pytest.mark.slow
def test_wrong_uses_are_rejected(report: str, request: pytest.FixtureRequest) -> None:
    """Every wrong use is an error on its very line, and nothing else is."""
    checker = _checker(request)
    errors = _errors(report, checker, "reject")
    assert {n: text for n, text in errors.items() if n not in _marked(checker)} == {}
    assert _marked(checker) - set(errors) == set()
    assert len(_marked(checker)) >= 50
