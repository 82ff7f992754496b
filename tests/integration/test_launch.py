"""Launching and shutting down: what resumes by itself, and what a configuration may say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaStatus, SagaUsageError, _running, saga
from steps import RetryPolicy, step

from .support import Crash, Ledger, until

LEDGER = Ledger()
ENTERED = threading.Event()
GATE = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    ENTERED.clear()
    GATE.clear()


def undo(result: str) -> None:
    LEDGER.write(f"undo {result}")


@step(undo=undo)
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def two_steps() -> str:
    act("a")
    act("b")
    return "done"


@saga
def two_then_fail() -> str:
    act("a")
    act("b")
    raise ValueError("end")


def test_an_interrupted_saga_resumes_by_itself(app: sagas.Launched, relaunch: Any) -> None:
    """A saga that died goes on at the next launch, from its last checkpoint."""
    LEDGER.crash_at("b")
    with pytest.raises(Crash):
        two_steps.options(saga_id="f").start().result()
    relaunch()
    with SagaClient() as client:
        until(lambda: client.get("f").status is SagaStatus.COMPLETED)
        assert client.get("f").result == "done"
    assert LEDGER == ["a", "b", "b"]


def test_an_interrupted_unwinding_resumes_by_itself(app: sagas.Launched, relaunch: Any) -> None:
    """A saga that died while it was undone is undone to its end at the next launch."""
    LEDGER.crash_at("undo a")
    with pytest.raises(Crash):
        two_then_fail.options(saga_id="u").start().result()
    relaunch()
    with SagaClient() as client:
        until(lambda: client.get("u").status is SagaStatus.FAILED)
    assert LEDGER == ["a", "b", "undo b", "undo a", "undo a"]


@step
def waits() -> str:
    ENTERED.set()
    assert GATE.wait(15)
    return "waited"


@saga(name="launch.waiting")
def waiting() -> str:
    waits()
    act("after")
    return "done"


def test_shutdown_stops_at_the_next_step(app: sagas.Launched, relaunch: Any) -> None:
    """After shutdown no saga begins another step; it goes on at the next launch."""
    waiting.options(saga_id="w").start()
    assert ENTERED.wait(10)
    sagas.shutdown()
    GATE.set()
    relaunch()
    with SagaClient() as client:
        until(lambda: client.get("w").status is SagaStatus.COMPLETED)
    assert LEDGER == ["after"]


def test_shutdown_can_wait(app: sagas.Launched, relaunch: Any) -> None:
    """shutdown(timeout=) lets running sagas come to their end first."""
    handle = waiting.options(saga_id="w").start()
    assert ENTERED.wait(10)
    threading.Timer(0.2, GATE.set).start()
    sagas.shutdown(timeout=15)
    assert handle.result() == "done"
    assert LEDGER == ["after"]


TRIES: list[float] = []


@step(retry=RetryPolicy(max_attempts=None, first_delay=60))
def tries_for_ever() -> None:
    TRIES.append(time.monotonic())
    raise ConnectionError("not yet")


@saga(name="launch.trying")
def trying() -> None:
    tries_for_ever()


def test_shutdown_ends_a_retry_delay(app: sagas.Launched) -> None:
    """A saga that waits for its next attempt does not keep the process alive."""
    TRIES.clear()
    handle = trying.start()
    until(lambda: TRIES)
    sagas.shutdown()
    with pytest.raises(SagaUsageError, match="next launch"):
        handle.result(timeout=10)


def test_launch_as_a_context_manager(config: dict[str, Any]) -> None:
    """`with launch()` shuts down at the end of the block, and can be entered again."""
    for number in range(2):
        with sagas.launch(config):
            assert two_steps.options(saga_id=f"c{number}").run() == "done"
    with pytest.raises(SagaUsageError, match="before launch"):
        two_steps.start()


def test_the_configuration_file(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dbos-config.yaml in the current folder is found; the variable wins over its database."""
    other = f"sqlite:///{tmp_path}/other.sqlite"
    settings: dict[str, Any] = {
        "name": "from-file",
        "system_database_url": other,
        "telemetry": {"logs": {"logLevel": "CRITICAL"}},
        "runtimeConfig": {"start": ["python main.py"]},
    }
    Path("dbos-config.yaml").write_text(yaml.safe_dump(settings))
    with sagas.launch() as launched:
        assert launched.config["name"] == "from-file"
        assert launched.config["system_database_url"] == other
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", database)
    with sagas.launch(name="by-name") as launched:
        assert launched.config["name"] == "by-name"
        assert two_steps.options(saga_id="c").run() == "done"
        with SagaClient() as client:
            assert client.get("c").status is SagaStatus.COMPLETED
    with SagaClient(database) as client:
        assert [s.saga_id for s in client.list(name=two_steps)] == ["c"]


MAIN = """
from sagas import launch, saga
from steps import step

@step
def act() -> str:
    return "acted"

@saga
def started() -> str:
    return act()

with launch():
    print(started.options(saga_id="by-dbos-start").run())
"""


def test_dbos_command_line_uses_the_same_file(database: str) -> None:
    """`dbos migrate`, `start` and `workflow list` read the file that launch reads."""
    Path("main.py").write_text(MAIN)
    Path("dbos-config.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "test-app",
                "system_database_url": database,
                "runtimeConfig": {"start": [f"{sys.executable} main.py"]},
            }
        )
    )
    dbos = str(Path(sys.executable).with_name("dbos"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DBOS_")}
    environment["PYTHONPATH"] = str(Path(sagas.__file__).parents[1])
    commands = ("migrate", "start", "workflow list", "workflow steps by-dbos-start")
    for command in commands:
        ended = subprocess.run(
            [dbos, *command.split()],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=True,
        )
    assert '"function_name": "act"' in ended.stdout


def test_dbos_launched_by_the_application(config: dict[str, Any]) -> None:
    """Where the application launches DBOS itself, sagas run all the same."""
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    try:
        assert two_steps.options(saga_id="own").run() == "done"
    finally:
        DBOS.destroy()


def test_a_launch_that_failed_can_be_repeated(config: dict[str, Any], tmp_path: Path) -> None:
    """After an error launch leaves nothing behind."""
    bad = tmp_path / "bad.sqlite"
    bad.write_text("this is no database, " * 100)
    with pytest.raises(SagaUsageError, match="not a database"):
        sagas.launch({**config, "system_database_url": f"sqlite:///{bad}"})
    with sagas.launch(config):
        assert two_steps.run() == "done"


def test_a_serializer_that_cannot_store_errors_is_refused(config: dict[str, Any]) -> None:
    """A replay must see the errors that the live run saw."""
    from dbos import DBOSPortableJSONSerializer

    with pytest.raises(SagaUsageError, match="serializer"):
        sagas.launch({**config, "serializer": DBOSPortableJSONSerializer()})


HOLDER = """
import sys, time, sagas
sagas.launch({"name": "test-app", "system_database_url": sys.argv[1], "log_level": "CRITICAL"},
             executor_id=sys.argv[2])
print("launched", flush=True)
time.sleep(60)
"""


def test_two_processes_cannot_share_an_executor(database: str, config: dict[str, Any]) -> None:
    """A second process of the same name is refused: both would run the same sagas."""
    root = str(Path(sagas.__file__).parents[1])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, database, "one"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "launched\n"
        with pytest.raises(SagaUsageError, match="Another process"):
            sagas.launch(config, executor_id="one")
    finally:
        holder.kill()
        holder.communicate()
    with sagas.launch(config, executor_id="one"):
        assert two_steps.run() == "done"


BEGUN = threading.Semaphore(0)


@step
def outlives() -> str:
    BEGUN.release()
    assert GATE.wait(15)
    return "outlived"


@saga
def outliving() -> str:
    outlives()
    act("after")
    return "done"


def test_a_body_that_outlives_its_launch_parks_nothing(app: sagas.Launched, relaunch: Any) -> None:
    """A step that outlives its launch ends before the resumed saga runs it again."""
    outliving.options(saga_id="outlived").start()
    assert BEGUN.acquire(timeout=10)
    relaunch()
    handle = sagas.SagaHandle[str]("outlived")
    until(lambda: len(_running.all_runs()) == 2)
    assert not BEGUN.acquire(timeout=0.1)  # the old body still runs: none beside it
    GATE.set()
    assert handle.result(timeout=15) == "done"
    assert BEGUN.acquire(timeout=0)
    assert LEDGER == ["after"]
    assert handle.state().reason is None
