"""
A worker of an application, as a process of its own; it does what it is told.

It is run as `python -m tests.support.worker '<json of a Task>'`. It prints `launched <executor>`,
then for each line that it reads one with the answer. Its sagas write their effects to a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS
from sqlalchemy.exc import SQLAlchemyError

import sagas
from sagas import _dbos
from sagas._failover import Failover
from sagas._launch import launched
from sagas._session import SessionLock
from steps import step

ROOT = Path(__file__).parents[2]
QUEUE = "worker-queue"
VERSION = "worker-version"


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is."""

    folder: str
    """Where its ledger and its gates are."""
    url: str
    executor_id: str | None = None


def settings(task: Task) -> dict[str, Any]:
    """The configuration of a worker."""
    return {
        "name": "worker-app",
        "application_version": VERSION,
        "system_database_url": task.url,
        "executor_id": task.executor_id,
        "log_level": "CRITICAL",
        "run_migrations": False,
    }


_folder: Path | None = None


def use(folder: Path) -> None:
    """Have the sagas of this process write there."""
    global _folder
    _folder = folder


def ledger(folder: Path) -> list[str]:
    """What has taken effect, in order."""
    path = folder / "ledger"
    return path.read_text().splitlines() if path.exists() else []


def _write(entry: str) -> None:
    assert _folder is not None
    with (_folder / "ledger").open("a") as file:
        file.write(entry + "\n")


@step
def act(name: str) -> str:
    _write(f"{name} {DBOS.workflow_id}")
    return name


@step
def wait(name: str) -> str:
    """Take effect once the gate is open."""
    assert _folder is not None
    _write(f"{name} begun {DBOS.workflow_id}")
    deadline = time.monotonic() + 60
    while not (_folder / "gate").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return act.__wrapped__(name)  # type: ignore[attr-defined,no-any-return]


@sagas.saga(name="worker-saga", max_recovery_attempts=5)
def waiting() -> str:
    act("a")
    wait("b")
    act("c")
    return "done"


def own_lock() -> SessionLock:
    """The name that this process holds."""
    application = launched()
    assert application is not None
    lock = application._lock
    assert isinstance(lock, SessionLock)
    return lock


def failover(
    patience: float,
    lock: SessionLock | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Failover:
    """The failover of this process, or of another one that holds `lock`."""
    return Failover(
        lock or own_lock(),
        "worker-app",
        _dbos.app_version(),
        lambda: ["worker-saga"],
        max_takeovers=lambda name: 5,
        patience=patience,
        clock=clock,
    )


def _look_for_ever(patience: float) -> None:
    here = failover(patience)
    while True:
        own_lock().maintain()
        with contextlib.suppress(SQLAlchemyError):  # its session may have been ended just now
            here.look()
        time.sleep(0.05)


class Worker:
    """A worker, as the test sees it."""

    def __init__(self, task: Task) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.worker", json.dumps(asdict(task))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def answer(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, *words: str) -> str:
        """Have it do something; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.communicate()


def main(task: Task) -> None:
    """Launch, and do what comes."""
    use(Path(task.folder))
    application = sagas.launch(settings(task))
    DBOS.register_queue(QUEUE, polling_interval_sec=0.05)
    print("launched", application.config["executor_id"], flush=True)
    for line in sys.stdin:
        match line.split():
            case ["start", saga_id]:
                waiting.options(saga_id=saga_id).start()
            case ["enqueue", saga_id]:
                waiting.options(saga_id=saga_id, queue=QUEUE).start()
            case ["failover", patience]:
                threading.Thread(
                    target=_look_for_ever, args=(float(patience),), daemon=True
                ).start()
            case other:
                raise ValueError(other)
        print("ok", flush=True)


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
