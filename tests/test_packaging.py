"""What is uploaded and installed: the archives, and a saga run from the wheel alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

PROGRAM = """\
import sagas, steps
from sagas import SagaFailedError, launch, saga
from steps import step

undone = []

@step(undo=lambda result, number: undone.append((result, number)))
def reserve(number: int) -> str:
    return f"r{number}"

@saga
def fulfil(number: int) -> str:
    reserve(number)
    if number == 13:
        raise ValueError("no carrier")
    return "shipped"

with launch(name="wheel-test"):
    print(fulfil.run(1))
    try:
        fulfil.run(13)
    except SagaFailedError as error:
        print(error.failure.message, undone)
print(sagas.__file__, steps.__file__, sep="\\n")
"""


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("DBOS_", "PYTHON", "VIRTUAL_ENV"))
    }
    run = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, as they would be uploaded."""
    folder = tmp_path_factory.mktemp("dist")
    command = ("-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", folder, ROOT)
    _run(sys.executable, *command, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def _files_of_packages() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in ("sagas", "steps")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_both_packages_and_their_types(archives: tuple[Path, Path]) -> None:
    """The wheel holds every file of both packages, `py.typed` among them, and no other code."""
    names = set(zipfile.ZipFile(archives[0]).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    assert code == _files_of_packages()
    assert {"sagas/py.typed", "steps/py.typed"} <= code
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_sdist_can_be_tested(archives: tuple[Path, Path]) -> None:
    """The source archive holds the packages with their types, the tests and the licence."""
    with tarfile.open(archives[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _files_of_packages() <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".sqlite"))]


def test_a_saga_runs_from_the_wheel(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """In an empty environment the wheel brings all that it needs, and a saga runs on SQLite."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    _run(python, "-m", "pip", "install", "--quiet", archives[0], cwd=tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    lines = _run(python, "-W", "error", "program.py", cwd=tmp_path).splitlines()
    assert lines[:2] == ["shipped", "no carrier [('r13', 13)]"]
    assert all(str(home) in path for path in lines[2:])
    _run(python, "-m", "pip", "check", cwd=tmp_path)
