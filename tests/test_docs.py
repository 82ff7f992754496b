"""
The examples in the documentation.

A ```python block with a call of `launch(` is a whole program: it is run, in a folder of its own.
Any other block is a part of one: it must at least be Python. A block marked ```python skip is
neither; it shows what does not work.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python *\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks_of(page: str) -> list[tuple[int, str]]:
    """The examples of a page, each with its line."""
    found = []
    for match in BLOCK.finditer(page):
        indent, text = match[1], match[2]
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        found.append((page.count("\n", 0, match.start()) + 2, "\n".join(lines) + "\n"))
    return found


EXAMPLES = [
    pytest.param(
        page,
        line,
        code,
        id=f"{page.relative_to(ROOT)}:{line}",
        marks=[pytest.mark.slow] if "launch(" in code else [],
    )
    for page in PAGES
    for line, code in blocks_of(page.read_text())
]


@pytest.mark.skipif(not EXAMPLES, reason="the documentation has no example")
@pytest.mark.parametrize(("page", "line", "code"), EXAMPLES)
def test_an_example(page: Path, line: int, code: str, tmp_path: Path) -> None:
    """Every example is Python, and every whole program runs to its end without an error."""
    # Its line numbers are those of the page.
    compiled = "\n" * (line - 1) + code
    compile(compiled, str(page), "exec")
    if "launch(" not in code:
        return
    program = tmp_path / "example.py"
    program.write_text(code)
    run = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("DBOS_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_readme_is_there() -> None:
    """The README is a page of the documentation."""
    assert PAGES[0].is_file()


def test_examples_are_found() -> None:
    """Blocks are found at their line, indented or not; blocks of another kind are not."""
    page = (
        "# Title\n\n```python\na = 1\n```\n\n- item\n\n  ```python\n  if a:\n      b = 2\n  ```\n\n"
        "```sh\nrm x\n```\n\n```python skip\nnot code\n```\n"
    )
    assert blocks_of(page) == [(4, "a = 1\n"), (10, "if a:\n    b = 2\n")]
