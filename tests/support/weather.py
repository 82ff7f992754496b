"""
A storm: hundreds of sagas on several workers, while processes are killed, sagas are cancelled, by
this library and by DBOS, and the database loses its connections or is stopped and started.

It ends when every saga has ended, and is audited: by what the ledger says has taken effect, and by
the history.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from sagas import SagaClient, SagaNotFoundError, SagaState, SagaUsageError
from sagas._stack import undone_step

from .ledger import Entry, FileLedger, standing
from .storm import APP, QUEUE, TOPIC, Plan, Task

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
"""Seconds that the sagas have to come to their end once the weather is fine again."""


@dataclass(slots=True)
class Record:
    """What happened in a storm, and how it ended."""

    sagas: int = 0
    seconds: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """In plain data."""
        return {
            "sagas": self.sagas,
            "seconds": round(self.seconds, 1),
            "events": dict(sorted(self.events.items())),
            "states": dict(sorted(self.states.items())),
            "wrong": self.wrong,
        }


class Storm:
    """
    One storm.

    Args:
        url: The system database.
        folder: Where the ledger and the workers' output go.
        workers: How many processes.
        restart: Stops the database and starts it again; None: it is left alone.
        seed: Of everything that chance decides here.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        workers: int,
        seed: int,
        restart: Callable[[], None] | None = None,
    ) -> None:
        self._url = url
        self._folder = folder
        self._restart = restart
        self._chance = random.Random(seed)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._wanted = workers
        self._open: list[str] = []
        self._next_messages: set[str] = set()
        self.record = Record()

    def run(self, sagas: int, seconds: float) -> Record:
        """
        Run so many sagas through a storm of so many seconds, and audit them.

        Raises:
            AssertionError: Not all have ended.
        """
        began = time.monotonic()
        self._spawn()
        client = SagaClient(self._url)
        dbos = DBOSClient(system_database_url=self._url)
        ids = [f"storm-{n:04d}" for n in range(sagas)]
        pending = list(enumerate(ids))
        try:
            while time.monotonic() - began < seconds or pending:
                share = (time.monotonic() - began) / seconds * sagas
                while pending and pending[0][0] <= share:
                    self._weather_proof(lambda: self._enqueue(dbos, *pending[0]))
                    pending.pop(0)
                self._strike(client, dbos)
                time.sleep(self._chance.uniform(0.05, 0.25))
            self._await_end(client, ids)
            states = {i: client.get(i) for i in ids}
        finally:
            self._end()
            client.close()
            dbos.destroy()
        self.record.sagas, self.record.seconds = sagas, time.monotonic() - began
        self._audit(states)
        return self.record

    def _enqueue(self, dbos: DBOSClient, number: int, saga_id: str) -> None:
        plan = Plan.of(number)
        options: Any = {
            "workflow_name": "storm-sync" if number % 2 else "storm-async",
            "queue_name": QUEUE,
            "workflow_id": saga_id,
            "application_name": APP,
            "app_version": "storm",
        }
        if plan.deadline is not None:
            options["attributes"] = {"sagas.timeout": plan.deadline}
        dbos.enqueue(options, number)
        self._open.append(saga_id)

    def _strike(self, client: SagaClient, dbos: DBOSClient) -> None:
        what = self._chance.choices(
            ("kill", "cancel", "dbos-cancel", "message", "cut", "restart"),
            (2, 4, 3, 12, 1, 0.3),
        )[0]
        match what:
            case "kill":
                os.kill(self._chance.choice(self._processes).pid, signal.SIGKILL)
            case "cancel" if self._open:
                saga_id = self._chance.choice(self._open)
                self._weather_proof(lambda: client.cancel(saga_id, "storm"))
            case "dbos-cancel" if self._open:
                saga_id = self._chance.choice(self._open)
                self._weather_proof(lambda: dbos.cancel_workflow(saga_id))
            case "message":
                self._send(client, self._chance.sample(self._open, min(5, len(self._open))))
                return
            case "cut" if self._url.startswith("postgres"):
                self._cut_connections()
            case "restart" if self._restart is not None:
                self._restart()
            case _:
                return
        self.record.events[what] += 1
        self._spawn()

    def _send(self, client: SagaClient, saga_ids: list[str]) -> None:
        for saga_id in saga_ids:
            with contextlib.suppress(SagaNotFoundError, SagaUsageError):
                self._weather_proof(lambda i=saga_id: client.send(i, TOPIC, "go"))
                self.record.events["message"] += 1

    def _weather_proof(self, ask: Callable[[], Any]) -> None:
        """Ask until the database answers."""
        while True:
            try:
                ask()
            except sa.exc.SQLAlchemyError:
                time.sleep(0.1)
            else:
                return

    def _cut_connections(self) -> None:
        engine = sa.create_engine(sa.make_url(self._url).set(drivername="postgresql+psycopg"))
        with contextlib.suppress(sa.exc.SQLAlchemyError), engine.connect() as connection:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        engine.dispose()

    def _spawn(self) -> None:
        """See to it that there are as many workers as there should be."""
        self._processes = [p for p in self._processes if p.poll() is None]
        failover = 3.0
        while len(self._processes) < self._wanted:
            task = json.dumps(asdict(Task(str(self._folder), self._url, failover)))
            with (self._folder / "output").open("ab") as output:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.support.storm", task],
                        cwd=ROOT,
                        stdout=output,
                        stderr=output,
                    )
                )

    def _await_end(self, client: SagaClient, ids: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            self._spawn()
            left: list[SagaState] = []
            for status in ("STARTED", "PENDING", "COMPENSATING"):
                self._weather_proof(
                    lambda s=status, found=left: found.extend(client.list(status=s, limit=len(ids)))
                )
            if not left:
                return
            self._send(client, [s.saga_id for s in left])
            assert time.monotonic() < deadline, "\n".join(str(client.get(s.saga_id)) for s in left)
            time.sleep(0.3)

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _audit(self, states: dict[str, SagaState]) -> None:
        entries = FileLedger(self._folder / "ledger").entries()
        by_saga: dict[str, list[Entry]] = {}
        for entry in entries:
            by_saga.setdefault(entry.key.rpartition(":")[0], []).append(entry)
        for saga_id, state in states.items():
            self.record.states[state.status.value] += 1
            left = standing(by_saga.get(saga_id, []))
            completed = state.status == "COMPLETED"
            if state.status not in ("COMPLETED", "FAILED"):
                self.record.wrong.append(f"{saga_id} is {state.status}: {state.reason}")
            if completed and len(left) != _effects(Plan.of(int(saga_id[-4:])), saga_id):
                self.record.wrong.append(f"{saga_id} completed, but {left} stand: {state}")
            if not completed and left:
                self.record.wrong.append(f"{saga_id} is {state.status}, but {left} stand: {state}")
        self._audit_histories(list(states))

    def _audit_histories(self, ids: list[str]) -> None:
        client = DBOSClient(system_database_url=self._url)
        for saga_id in ids:
            undos = [
                target
                for row in client.list_workflow_steps(saga_id, load_output=False)
                if (target := undone_step(row["function_name"])) is not None
            ]
            if undos != sorted(set(undos), reverse=True):
                self.record.wrong.append(f"{saga_id} was undone in the order {undos}")
        client.destroy()


def _effects(plan: Plan, saga_id: str) -> int:
    """How many effects a saga of this plan has when it has completed."""
    in_group = 2 if int(saga_id[-4:]) % 2 else 3
    sizes = {"receive": 0, "sleep": 0, "group": in_group}
    return sum(sizes.get(kind, 1) for kind in plan.steps)
