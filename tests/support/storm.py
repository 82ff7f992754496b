"""
The worker of a storm: sagas of many shapes, whose effects go to a ledger in a file.

It is run as `python -m tests.support.storm '<json of a Task>'`, several times over, and is killed
and started again by `tests.support.weather`. What a saga does is told by its argument alone: a
`Plan`, made from a seed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS

import sagas
from steps import (
    NOT_DONE,
    NonRetryableError,
    NotDone,
    RetryPolicy,
    idempotency_key,
    receive,
    receive_async,
    sleep,
    sleep_async,
    step,
)

from .ledger import Entry, FileLedger, Kind

QUEUE = "storm"
APP = "storm-app"
TOPIC = "approval"
SOON = RetryPolicy(max_attempts=None, first_delay=0.02, max_delay=0.2)
NEVER_MORE = 1_000_000
"""Recoveries that no storm comes to: a saga that is killed often is not to be given up."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is."""

    folder: str
    url: str
    failover: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a saga does."""

    seed: int
    steps: tuple[str, ...]
    """The kinds of its steps, in order."""
    fails: bool
    """Whether its last step is refused."""
    deadline: float | None
    """Its time limit in seconds."""

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        chance = random.Random(seed)
        kinds = ("plain", "attempted", "probed", "stubborn", "receive", "sleep", "group")
        steps = tuple(chance.choices(kinds, (4, 2, 2, 1, 1, 1, 1), k=chance.randint(2, 6)))
        return cls(
            seed,
            steps,
            fails=chance.random() < 0.3,
            deadline=chance.choice((None, None, None, 0.5, 2.0)),
        )


_ledger: FileLedger | None = None


def _write(kind: Kind, name: str, *, done: bool = True) -> None:
    assert _ledger is not None
    _ledger.append(Entry(kind, name, idempotency_key(), done))


def _stands() -> bool:
    assert _ledger is not None
    key = idempotency_key()
    kinds = [e.kind for e in _ledger.entries() if e.key == key]
    return bool(kinds) and kinds[-1] == "step"


def _work(name: str) -> str:
    """Take effect, slowly enough to be hit in the middle."""
    time.sleep(random.uniform(0.0, 0.03))
    _write("step", name)
    time.sleep(random.uniform(0.0, 0.03))
    return name


def _undo(result: str | None, name: str) -> None:
    time.sleep(random.uniform(0.0, 0.03))
    if _stands():
        _write("undo", name)
    time.sleep(random.uniform(0.0, 0.02))


def _stubborn(result: str, name: str) -> None:
    if random.random() < 0.5:
        raise ConnectionError("try again")
    _undo(result, name)


def _probe(name: str) -> str | NotDone:
    if random.random() < 0.2:
        raise ConnectionError("try again")
    return name if _stands() else NOT_DONE


@step(undo=_undo)
def plain(name: str) -> str:
    return _work(name)


@step(undo=_undo, undo_when="attempted", timeout=0.2)
def attempted(name: str) -> str:
    if random.random() < 0.1:
        time.sleep(0.25)
    return _work(name)


@step(undo=_undo, probe=_probe, timeout=0.2, undo_retry=SOON)
def probed(name: str) -> str:
    if random.random() < 0.1:
        time.sleep(0.25)
    return _work(name)


@step(undo=_stubborn, undo_retry=SOON)
def stubborn(name: str) -> str:
    return _work(name)


@step
def refused(name: str) -> str:
    raise NonRetryableError(f"{name} is refused")


SYNC: dict[str, Any] = {
    "plain": plain,
    "attempted": attempted,
    "probed": probed,
    "stubborn": stubborn,
}


def _async(name: str, **options: Any) -> Any:
    async def act(name: str) -> str:
        if "timeout" in options and random.random() < 0.1:
            await asyncio.sleep(0.25)
        return await asyncio.to_thread(_work, name)

    return step(name=f"storm.async.{name}", **options)(act)


ASYNC: dict[str, Any] = {
    "plain": _async("plain", undo=_undo),
    "attempted": _async("attempted", undo=_undo, undo_when="attempted", timeout=0.2),
    "probed": _async("probed", undo=_undo, probe=_probe, timeout=0.2, undo_retry=SOON),
    "stubborn": _async("stubborn", undo=_stubborn, undo_retry=SOON),
}


@sagas.saga(name="storm-sync", max_recovery_attempts=NEVER_MORE)
def storm_sync(seed: int) -> int:
    plan = Plan.of(seed)
    for number, kind in enumerate(plan.steps):
        name = f"{kind}-{number}"
        if kind == "receive":
            receive(TOPIC)
        elif kind == "sleep":
            sleep(0.3)
        elif kind == "group":
            plain(f"{name}-a")
            plain(f"{name}-b")
        else:
            SYNC[kind](name)
    if plan.fails:
        refused("last")
    return seed


@step
async def refused_async(name: str) -> str:
    raise NonRetryableError(f"{name} is refused")


@sagas.saga(name="storm-async", max_recovery_attempts=NEVER_MORE)
async def storm_async(seed: int) -> int:
    plan = Plan.of(seed)
    for number, kind in enumerate(plan.steps):
        name = f"{kind}-{number}"
        if kind == "receive":
            await receive_async(TOPIC)
        elif kind == "sleep":
            await sleep_async(0.3)
        elif kind == "group":
            names = [f"{name}-{letter}" for letter in "abc"]
            await asyncio.gather(*(ASYNC["plain"](n) for n in names))
        else:
            await ASYNC[kind](name)
    if plan.fails:
        await refused_async("last")
    return seed


def main(task: Task) -> None:
    """Launch, and serve the queue until killed."""
    global _ledger
    _ledger = FileLedger(Path(task.folder) / "ledger")
    random.seed()
    sagas.launch(
        {
            "name": APP,
            "application_version": "storm",
            "system_database_url": task.url,
            "log_level": "CRITICAL",
            "run_migrations": False,
        },
        supervision=sagas.Supervision(interval=0.2, failover=task.failover),
    )
    DBOS.register_queue(QUEUE, worker_concurrency=16, polling_interval_sec=0.1)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
