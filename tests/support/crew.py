"""
Workers that are launched as an application launches them, each a process of its own.

Run as `python -m tests.support.crew '<json of a Member>'`. It prints `launched <executor>`, then
for each line that it reads one with the answer. Its sagas write their effects to a ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS

import sagas
from sagas import Supervision, current, saga
from steps import idempotency_key, receive_async, step

from .ledger import Entry, FileLedger, Kind

ROOT = Path(__file__).parents[2]
QUEUE = "crew-queue"
CONCURRENCY = 3
APP = "crew-app"


@dataclass(frozen=True, slots=True)
class Member:
    """What a worker is."""

    folder: str
    """Where its ledger and its gates are."""
    url: str
    failover: float
    """Seconds after which it takes another one for dead."""


_folder = Path()


def use(folder: Path) -> None:
    """Have the sagas of this process write there."""
    global _folder
    _folder = folder


def entries(folder: Path) -> list[Entry]:
    """What has happened, in order."""
    return FileLedger(folder / "effects").entries()


def _write(kind: Kind, name: str, done: bool) -> None:
    note = json.dumps({"at": time.time(), "pid": os.getpid(), "saga": current().name})
    FileLedger(_folder / "effects").append(Entry(kind, name, idempotency_key(), done, note))


@contextmanager
def _written(kind: Kind, name: str) -> Iterator[None]:
    _write(kind, name, False)
    yield
    _write(kind, name, True)


def undo_work(result: int) -> None:
    with _written("undo", f"work {result}"):
        time.sleep(0.02)


@step(undo=undo_work)
def work(number: int) -> int:
    with _written("step", f"work {number}"):
        time.sleep(0.1)
    return number


@saga(name="crew.direct", max_recovery_attempts=5)
def direct(fails: bool) -> str:
    for number in range(4):
        work(number)
    if fails:
        raise ValueError("as ordered")
    return "done"


@saga(name="crew.queued", max_recovery_attempts=5)
def queued(fails: bool) -> str:
    for number in range(3):
        work(number)
    if fails:
        raise ValueError("as ordered")
    return "done"


@step
def kill_the_process() -> None:
    _write("step", "kill", False)
    os._exit(9)


@saga(name="crew.poisonous", max_recovery_attempts=2)
def poisonous() -> None:
    work(0)
    kill_the_process()


@step(name="work", undo=undo_work)
async def work_async(number: int) -> int:
    with _written("step", f"work {number}"):
        await asyncio.sleep(0.1)
    return number


def _wait_at_gate() -> None:
    deadline = time.monotonic() + 60
    while not (_folder / "gate").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@step(undo=undo_work)
def wait_at_gate(number: int) -> int:
    with _written("step", f"work {number}"):
        _wait_at_gate()
    return number


@saga(name="crew.waiting", max_recovery_attempts=5)
def waiting() -> str:
    work(0)
    wait_at_gate(1)
    work(2)
    return "done"


@saga(name="crew.pausing", max_recovery_attempts=5)
def pausing() -> str:
    work(0)
    _wait_at_gate()
    work(1)
    return "done"


@saga(name="crew.receiving", max_recovery_attempts=5)
async def receiving() -> str:
    await work_async(0)
    await receive_async("go")
    return "done"


SAGAS: dict[str, Any] = {
    "direct": direct,
    "queued": queued,
    "poisonous": poisonous,
    "waiting": waiting,
    "pausing": pausing,
    "receiving": receiving,
}


def settings(member: Member) -> dict[str, Any]:
    """The configuration of a worker."""
    return {
        "name": APP,
        "application_version": "crew-1",
        "system_database_url": member.url,
        "log_level": "CRITICAL",
        "run_migrations": False,
    }


class Worker:
    """A worker, as the test sees it."""

    def __init__(self, member: Member) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crew", json.dumps(asdict(member))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.executor_id: str | None = None
        self.died_at: float | None = None
        self.log = ""

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def await_launch(self) -> None:
        """Wait until it is launched."""
        launched, self.executor_id = self.answer().split()
        assert launched == "launched"

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

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.died_at is None:
            self._process.kill()
            _, self.log = self._process.communicate()
            self.died_at = time.time()


def main(member: Member) -> None:
    """Launch, and do what comes."""
    use(Path(member.folder))
    supervision = Supervision(failover=member.failover, interval=0.2)
    application = sagas.launch(settings(member), supervision=supervision)
    DBOS.register_queue(QUEUE, concurrency=CONCURRENCY, polling_interval_sec=0.1)
    print("launched", application.config["executor_id"], flush=True)
    for line in sys.stdin:
        name, saga_id, *rest = line.split()
        arguments = [word == "fails" for word in rest]
        queue = QUEUE if name == "queued" else None
        SAGAS[name].options(saga_id=saga_id, queue=queue).start(*arguments)
        print("ok", flush=True)


if __name__ == "__main__":
    main(Member(**json.loads(sys.argv[1])))
