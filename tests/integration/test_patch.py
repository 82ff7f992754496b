"""In-flight changes of a saga's steps: `DBOS.patch` in a saga."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaStatus, saga
from steps import step

from .support import Ledger, names, until

PROGRAM = """
import sys, time
from pathlib import Path
import sagas
from dbos import DBOS
from sagas import current, saga
from steps import step

def write(entry):
    with open("ledger", "a") as file:
        file.write(f"{entry} {current().saga_id}\\n")

def undo(result):
    write(f"undo {result}")

@step(undo=undo)
def reserve():
    write("reserve")
    return "reserve"

@step(undo=undo)
def check():
    write("check")
    return "check"

@step(undo=undo)
def pay():
    write("pay")
    return "pay"

@step
def ship(fails):
    write("ship begun")
    while not Path("gate").exists():
        time.sleep(0.01)
    if fails:
        raise ValueError("no carrier")
    write("ship")

@saga
def order(fails):
    reserve()
    BODY
    pay()
    ship(fails)
    return "done"

sagas.launch({"name": "patched-app", "application_version": "fixed",
              "system_database_url": sys.argv[1], "log_level": "CRITICAL"})
for saga_id in sys.argv[2:]:
    order.options(saga_id=saga_id).start(saga_id.endswith("fails"))
print("started", flush=True)
time.sleep(60)
"""
OLD = PROGRAM.replace("BODY", "pass")
NEW = PROGRAM.replace("BODY", 'if DBOS.patch("check-first"): check()')


def start(tmp_path: Path, code: str, database: str, *saga_ids: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), database, *saga_ids],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(sagas.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def ledger(tmp_path: Path, saga_id: str) -> list[str]:
    lines = (tmp_path / "ledger").read_text().splitlines()
    return [line.removesuffix(f" {saga_id}") for line in lines if line.endswith(f" {saga_id}")]


@pytest.mark.slow
def test_a_step_is_patched_in(database: str, tmp_path: Path) -> None:
    """Sagas in flight end the old way, new ones the new way; either way all is undone."""
    (tmp_path / "ledger").touch()
    old = start(tmp_path, OLD, database, "old-works", "old-fails")
    try:
        for saga_id in ("old-works", "old-fails"):
            until(lambda saga_id=saga_id: "ship begun" in ledger(tmp_path, saga_id))
    finally:
        old.kill()
        old.communicate()
    (tmp_path / "gate").touch()
    new = start(tmp_path, NEW, database, "new-works", "new-fails")
    ids = ("old-works", "old-fails", "new-works", "new-fails")
    try:
        with SagaClient(database) as client:
            until(lambda: all(client.get(i).status.is_final for i in ids))
            states = {i: client.get(i) for i in ids}
    finally:
        new.kill()
        new.communicate()
    for saga_id in ids:
        failed = saga_id.endswith("fails")
        assert states[saga_id].status is (SagaStatus.FAILED if failed else SagaStatus.COMPLETED)
    begun = ["reserve", "pay", "ship begun", "ship begun"]
    assert ledger(tmp_path, "old-works") == [*begun, "ship"]
    assert ledger(tmp_path, "old-fails") == [*begun, "undo pay", "undo reserve"]
    begun = ["reserve", "check", "pay", "ship begun"]
    assert ledger(tmp_path, "new-works") == [*begun, "ship"]
    assert ledger(tmp_path, "new-fails") == [*begun, "undo pay", "undo check", "undo reserve"]


LEDGER = Ledger()


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def patched_at_its_end() -> None:
    act("a")
    act("b")
    is_new_code = "undo b" in LEDGER
    if is_new_code and DBOS.patch("at-the-end"):
        act("c")
    raise ValueError("end")


@pytest.mark.slow
def test_a_patch_where_the_saga_had_turned(shared_app: sagas.Launched) -> None:
    """Code that is patched at the very place where a saga turned changes nothing of its way."""
    LEDGER.crash_at("undo b", "undo a")
    patched_at_its_end.options(saga_id="turned").start()
    until(lambda: sagas.SagaHandle[Any]("turned").status() is SagaStatus.FAILED)
    assert LEDGER == ["a", "b", "undo b", "undo b", "undo a", "undo a"]
    assert "DBOS.patch-at-the-end" in names("turned")


@step
async def act_async(name: str) -> str:
    await asyncio.sleep(0)
    return act(name)


@saga
async def patched_in_a_branch() -> None:
    await act_async_with_undo("a")

    async def branch(name: str) -> None:
        if await DBOS.patch_async(name):
            await act_async_with_undo(name)

    await asyncio.gather(branch("b"), branch("c"))


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
async def act_async_with_undo(name: str) -> str:
    LEDGER.write(name)
    return name


def test_patches_in_concurrent_branches_park(shared_app: sagas.Launched) -> None:
    """DBOS refuses a patch whose place depends on timing: that is no failure of the saga."""
    handle = patched_in_a_branch.start()
    until(lambda: handle.status() is SagaStatus.PARKED)
    assert LEDGER[0] == "a"
    assert not any(entry.startswith("undo") for entry in LEDGER)
    reason = handle.state().reason
    assert reason is not None
    assert "does not match its history" in reason
    assert "concurrent branches" in reason
