"""
A program whose saga kills it, in its second step, until DBOS gives the saga up.

It is run by `tests.support.trial.run_forked`. Its effects go to a ledger, what it sees to reports.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, Supervision
from steps import NOT_DONE, NotDone, idempotency_key, step

from .ledger import Entry, FileLedger, Kind

SAGA_ID = "deadly"
PATIENCE = 60.0
DEATH = 1
"""The exit code of a process that its saga has killed."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What one process is to do."""

    folder: str
    url: str
    policy: str
    """How one learns what became of the second step: `probed`, `attempted` or `completed`."""
    lethal: bool
    """Whether the second step kills its process, and nobody looks after sagas."""
    took_effect: bool = False
    """What the probe says."""


_orders: Orders | None = None


def _given() -> Orders:
    assert _orders is not None, "the program has been told what to do"
    return _orders


def _write(kind: Kind, name: str, note: str = "", *, done: bool = True) -> None:
    FileLedger(Path(_given().folder) / "ledger").append(
        Entry(kind, name, idempotency_key(), done, note)
    )


def _undo_first(result: str) -> None:
    _write("undo", "first", result)


def _undo_second(result: str | None) -> None:
    _write("undo", "second", str(result))


def _probe() -> str | NotDone:
    _write("step", "probe")
    return "found" if _given().took_effect else NOT_DONE


@step(undo=_undo_first)
def first() -> str:
    _write("step", "first")
    return "1"


def _second() -> str:
    _write("step", "second", done=False)
    if _given().lethal:
        os._exit(DEATH)
    _write("step", "second")
    return "2"


def _saga(policy: str, **options: Any) -> Any:
    second = step(name=f"deadly.{policy}", undo=_undo_second, **options)(_second)

    def body() -> str:
        first()
        second()
        return "done"

    return sagas.saga(name=f"deadly-{policy}", max_recovery_attempts=1)(body)


SAGAS = {
    "completed": _saga("completed"),
    "attempted": _saga("attempted", undo_when="attempted"),
    "probed": _saga("probed", probe=_probe),
}


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, SagaHandle[Any](SAGA_ID).state()
        time.sleep(0.01)


def _report(name: str) -> None:
    state = SagaHandle[Any](SAGA_ID).state()
    report = {
        "status": state.status.value,
        "reason": state.reason,
        "steps": [(s.name, s.status.value) for s in state.steps],
        "history": [row["function_name"] for row in DBOS.list_workflow_steps(SAGA_ID)],
    }
    (Path(_given().folder) / name).write_text(json.dumps(report))


def main(orders: Orders) -> None:
    """Launch, and wait for what becomes of the saga; retry it once where it is parked."""
    global _orders
    _orders = orders
    config = {
        "name": "deadly-app",
        "application_version": "deadly",
        "system_database_url": orders.url,
        "log_level": "CRITICAL",
        "run_migrations": False,
    }
    interval = 3600 if orders.lethal else 0.05
    sagas.launch(config, supervision=Supervision(interval=interval))
    handle = SagaHandle[Any](SAGA_ID)
    if DBOS.get_workflow_status(SAGA_ID) is None:
        SAGAS[orders.policy].options(saga_id=SAGA_ID).start()
    if orders.lethal:
        dead = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
        _until(lambda: bool(DBOS.list_workflows(workflow_ids=[SAGA_ID], status=dead)))
        return
    _until(lambda: handle.status().is_final or handle.status() is SagaStatus.PARKED)
    _report("report")
    if handle.status() is SagaStatus.PARKED:
        with SagaClient() as client:
            assert client.retry(SAGA_ID)
        _until(lambda: handle.status() in (SagaStatus.COMPLETED, SagaStatus.FAILED))
        _report("retried")


def run_as_process(orders: Orders) -> None:
    """`main` as all that this process does; nothing is shut down at its end."""
    with (Path(orders.folder) / "output").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    status = 2
    try:
        main(orders)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
