"""The layers: who may import whom, and what of DBOS is used."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dbos
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("sagas", "steps")
ADAPTERS = ("sagas._dbos", "steps._dbos")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LONGEST_FILE = 400


def _dotted(path: Path) -> str:
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


def _contracts() -> dict[str, dict[str, list[str]]]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {c["name"]: c for c in config["tool"]["importlinter"]["contracts"]}


def _imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Each absolute import of a module: the module, and the name taken from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.slow
def test_the_import_contracts_are_kept() -> None:
    """Imports point down, only the adapters import DBOS, and the pure core does no I/O."""
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(_contracts())} kept, 0 broken" in run.stdout


def test_every_module_is_under_the_contract() -> None:
    """A new module cannot import DBOS without being noticed."""
    listed = _contracts()["only the adapters import dbos"]["source_modules"]
    modules = {_dotted(path) for path in MODULES} - set(PACKAGES) - set(ADAPTERS)
    assert set(listed) == modules
    assert len(listed) == len(set(listed))


def test_the_packages_themselves_do_not_import_dbos() -> None:
    """The two public faces reach DBOS through the adapters only."""
    for package in PACKAGES:
        taken = {module.split(".")[0] for module, _ in _imports(ROOT / package / "__init__.py")}
        assert "dbos" not in taken


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_adapters_use_what_dbos_exports(adapter: str) -> None:
    """Only names that DBOS exports publicly are imported: a private one may go at any time."""
    path = ROOT / (adapter.replace(".", "/") + ".py")
    taken = [(m, n) for m, n in _imports(path) if m.split(".")[0] == "dbos"]
    assert taken
    for module, name in taken:
        assert module in ("dbos", "dbos.error")
        if module == "dbos":
            assert name in dbos.__all__
        else:
            assert not str(name).startswith("_")


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_nothing_private_of_dbos_is_used(path: Path) -> None:
    """No attribute of DBOS that begins with an underscore is read, by name or by `getattr`."""
    ours = {name for _, name in _imports(path) if name} | {"dbos_error", "_dbos", "steps_dbos"}
    of_dbos = {n for m, n in _imports(path) if m.split(".")[0] == "dbos" and n} & ours
    private = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            root = _root(node.value)
            if root in of_dbos | {"dbos_error", "dbos"} or _touches_client(node.value):
                private.append(ast.unparse(node))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr")
            and _root(node.args[0]) in of_dbos
        ):
            private.append(ast.unparse(node))
    assert private == []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def _touches_client(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "_client"


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_files_are_short(path: Path) -> None:
    """A file has one job, and fits into about 400 lines."""
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_every_module_tells_its_job(path: Path) -> None:
    """The docstring of a module says what it is for; the first line is a sentence of its own."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text
    assert text.splitlines()[0].rstrip()[-1] in ".:;"


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_steps_does_not_know_sagas(path: Path) -> None:
    """`steps` can be used, and understood, without `sagas`."""
    if _dotted(path).split(".")[0] == "steps":
        assert "sagas" not in {module.split(".")[0] for module, _ in _imports(path)}
