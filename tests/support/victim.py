"""
A program that runs one saga and kills itself where it is told to; started again, it resumes.

It is run in a process of its own, as `python -m tests.support.victim '<json of an Order>'` or by
`tests.support.trial`. Its effects go to a ledger in a file. The points at which it can kill
itself are hit as the saga comes by: in the bodies of steps and undos, and around the saga's
writes to the database, which are seen through SQLAlchemy's events.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import Context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, SetWorkflowID, SetWorkflowTimeout
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

import sagas
from sagas import _running
from steps import RetryPolicy, idempotency_key, step

from .ledger import Entry, FileLedger, Kind

STEPS = ("a", "b", "c", "d")
LIMIT = 2.0
"""Seconds that a saga may take whose plan it is to run past them."""

PATIENCE = 60.0
"""Seconds after which a program that does not come to its end gives up."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What one process is to do."""

    folder: str
    """Where its ledger, its list of points and its report are."""
    url: str
    app: str
    saga_id: str
    variant: str
    """`sync`; `async`; or `group`, which is async and runs b and c concurrently."""
    plan: str
    """How the saga ends: see `_end`."""
    kill_at: str | None = None
    """The point at which the process kills itself."""
    via: str = "start"
    """How the saga is started, where it is not there yet."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a process saw when the saga had ended."""

    status: str
    rows: list[tuple[int, str, bool]]
    """The history: step ID, name, whether it failed."""
    undone: list[tuple[int, str]] | None
    """What the outcome says was undone; None where there is no failure."""
    failure: str | None
    result: Any


_orders: Orders | None = None
_passed: set[str] = set()


def _given() -> Orders:
    assert _orders is not None, "the program has been told what to do"
    return _orders


def _ledger() -> FileLedger:
    return FileLedger(Path(_given().folder) / "ledger")


def point(name: str) -> None:
    """The saga comes by a point: note it, or die here."""
    orders = _given()
    with (Path(orders.folder) / "points").open("a") as points:
        points.write(name + "\n")
    if name == orders.kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    _passed.add(name)


# --- points around the saga's writes to the database


_WRITES = re.compile(r"(INSERT INTO|UPDATE) \"?\w+\"?\.(operation_outputs|workflow_status)\b")


def _label(statement: str, parameters: Any) -> str | None:
    """What a statement writes of our saga; None where it is none of those we look for."""
    values = list(parameters.values()) if isinstance(parameters, dict) else list(parameters)
    if _given().saga_id not in values:
        return None
    tables = set(_WRITES.findall(statement))
    if ("INSERT INTO", "operation_outputs") in tables:
        name = next((v for v in values if isinstance(v, str) and "victim." in v), None)
        return None if name is None else f"checkpoint:{_short(name)}"
    if ("INSERT INTO", "workflow_status") in tables:
        return "row"
    if ("UPDATE", "workflow_status") not in tables:
        return None
    texts = [str(getattr(v, "obj", v)) for v in values]  # .obj: of psycopg's JSON
    for mark, label in (("sagas.turn", "mark"), ("sagas.stop", "stop")):
        if any(mark in text for text in texts):
            return label
    if _given().plan.startswith("dbos-") and {"CANCELLED", "ENQUEUED"} & {*map(str, values)}:
        return "cancel" if "CANCELLED" in values else "resume"
    return "outcome" if "ERROR" in values or "SUCCESS" in values else None


def _short(name: str) -> str:
    """`a` of `victim.a`, and `undo:a` of `undo:1:victim.a`."""
    short = name.rpartition(".")[2]
    return f"undo:{short}" if name.startswith("undo:") else short


def _watch_writes() -> None:
    pending: dict[int, str] = {}

    @event.listens_for(Engine, "before_cursor_execute")
    def before(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        label = _label(statement, parameters)
        if label is not None:
            point(f"{label}:before")
            pending[id(connection.connection.dbapi_connection)] = label

    @event.listens_for(Pool, "checkin")
    def after(dbapi_connection: Any, record: Any) -> None:
        label = pending.pop(id(dbapi_connection), None)
        if label is not None:
            point(f"{label}:after")


# --- the saga


def _act(kind: Kind, name: str, note: str = "", fails: bool = False) -> None:
    key = idempotency_key()
    _ledger().append(Entry(kind, name, key, done=False, note=note))
    point(f"{kind}:{name}:begun")
    if fails:
        raise ValueError(f"{name} is refused")
    _ledger().append(Entry(kind, name, key, done=True, note=note))
    point(f"{kind}:{name}:effect")
    if kind == "step" and name == "c":
        _stop_once()


def _stop_once() -> None:
    """Have the saga stopped, by DBOS, a request, or its time, where that is its plan."""
    orders = _given()
    if orders.plan in ("deadline", "dbos-timeout"):
        _outlast()
    asked = Path(orders.folder) / "asked"
    if orders.plan not in ("dbos-cancel", "request") or asked.exists():
        return
    if orders.plan == "request":
        Context().run(sagas.SagaHandle[Any](orders.saga_id).cancel, "no stock")
        while (run := _running.of(orders.saga_id)) is not None and not run.request:  # type: ignore[attr-defined]
            time.sleep(0.001)  # else the rest of the saga may be quicker than the request
    else:
        Context().run(DBOS.cancel_workflow, orders.saga_id)
    asked.touch()


def _outlast() -> None:
    """Take longer than the saga may, unless that has been noticed before."""
    orders = _given()
    while (run := _running.of(orders.saga_id)) is not None and run.stopping() is None:  # type: ignore[attr-defined]
        row = Context().run(DBOS.get_workflow_status, orders.saga_id)
        if row is None or row.status == "CANCELLED":
            return
        time.sleep(0.02)


def _step_fails(name: str, plan: str) -> bool:
    return name == "d" and plan in ("fail", "stubborn")


def _undo_fails(name: str, plan: str) -> bool:
    if name != "b" or plan != "stubborn":
        return False
    return sum(e.kind == "undo" and e.name == name for e in _ledger().entries()) < 2


def _make_undo(name: str) -> Callable[[str, str], None]:
    def undo(result: str, plan: str) -> None:
        _act("undo", name, note=f"{result} {plan}", fails=_undo_fails(name, plan))

    return undo


SOON = RetryPolicy(max_attempts=None, first_delay=0.01, max_delay=0.01)


def _sync_step(name: str) -> Any:
    @step(name=f"victim.{name}", undo=_make_undo(name), undo_retry=SOON)
    def act(plan: str) -> str:
        _act("step", name, fails=_step_fails(name, plan))
        return f"{name}-result"

    return act


def _async_step(name: str) -> Any:
    undo_blocking = _make_undo(name)

    async def undo(result: str, plan: str) -> None:
        await asyncio.to_thread(undo_blocking, result, plan)

    @step(name=f"victim.async.{name}", undo=undo, undo_retry=SOON)
    async def act(plan: str) -> str:
        await asyncio.to_thread(_act, "step", name, fails=_step_fails(name, plan))
        return f"{name}-result"

    return act


def _end(plan: str) -> str:
    """
    The end of the saga's body, by its plan.

    `complete`: it returns. `fail`: its last step has failed. `stubborn`: likewise, and an undo
    fails twice. `vanish`: the body fails with an error of its own, which does not come again.
    `dbos-cancel`, `request`: step c has had the saga cancelled, by DBOS or by a request.
    `deadline`, `dbos-timeout`: step c has outlasted the saga's time limit, ours or DBOS's.
    """
    if plan == "vanish":
        seen = Path(_given().folder) / "vanished"
        if not seen.exists():
            seen.touch()
            raise RuntimeError("this error does not come again")
    return "done"


_sync = {name: _sync_step(name) for name in STEPS}
_async = {name: _async_step(name) for name in STEPS}


@sagas.saga(name="victim-sync")
def sync_saga(plan: str) -> str:
    for name in STEPS:
        _sync[name](plan)
    return _end(plan)


@sagas.saga(name="victim-async")
async def async_saga(plan: str) -> str:
    for name in STEPS:
        await _async[name](plan)
    return _end(plan)


@sagas.saga(name="victim-group")
async def group_saga(plan: str) -> str:
    await _async["a"](plan)
    await asyncio.gather(_async["b"](plan), _async["c"](plan))
    await _async["d"](plan)
    return _end(plan)


SAGAS: dict[str, Any] = {"sync": sync_saga, "async": async_saga, "group": group_saga}


# --- the program


def _start(orders: Orders) -> None:
    saga = SAGAS[orders.variant]
    queue = f"queue-{orders.app}"
    match orders.via:
        case "start":
            limit = LIMIT if orders.plan == "deadline" else None
            with SetWorkflowTimeout(LIMIT if orders.plan == "dbos-timeout" else None):
                saga.options(saga_id=orders.saga_id, timeout=limit).start(orders.plan)
        case "start_workflow":
            with SetWorkflowID(orders.saga_id):
                DBOS.start_workflow(saga, orders.plan)
        case "options(queue)":
            saga.options(saga_id=orders.saga_id, queue=queue).start(orders.plan)
        case "enqueue_workflow":
            with SetWorkflowID(orders.saga_id):
                DBOS.enqueue_workflow(queue, saga, orders.plan)
        case "client":
            client = DBOSClient(system_database_url=orders.url)
            client.enqueue(
                {
                    "workflow_name": saga.name,
                    "queue_name": queue,
                    "workflow_id": orders.saga_id,
                    "application_name": orders.app,
                },
                orders.plan,
            )
            client.destroy()
        case other:
            raise ValueError(other)


def main(orders: Orders) -> None:
    """Launch, start the saga if it is not there yet, wait for its end, and report."""
    global _orders
    _orders = orders
    _watch_writes()
    sagas.launch(
        {
            "name": orders.app,
            "application_version": orders.app,
            "system_database_url": orders.url,
            "log_level": "CRITICAL",
            "run_migrations": False,
        }
    )
    if orders.via not in ("start", "start_workflow"):
        DBOS.register_queue(f"queue-{orders.app}", polling_interval_sec=0.02)
    if DBOS.get_workflow_status(orders.saga_id) is None:
        _start(orders)
    state = sagas.SagaHandle[Any](orders.saga_id)
    deadline = time.monotonic() + PATIENCE
    while not state.status().is_final:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the saga is still {state.state()}")
        time.sleep(0.02)
    if "outcome:before" in _passed:  # what comes after the commit is seen a moment later
        while "outcome:after" not in _passed and time.monotonic() < deadline:
            time.sleep(0.001)
    _report(orders)


def _report(orders: Orders) -> None:
    state = sagas.SagaHandle[Any](orders.saga_id).state()
    rows = DBOS.list_workflow_steps(orders.saga_id)
    report = Report(
        status=state.status.value,
        rows=[(r["function_id"], r["function_name"], r["error"] is not None) for r in rows],
        undone=None if state.error is None else [(u.step_id, u.name) for u in state.error.undone],
        failure=None if state.failure is None else state.failure.message,
        result=state.result,
    )
    unfinished = Path(orders.folder) / "report.unfinished"
    unfinished.write_text(json.dumps(asdict(report)))
    unfinished.rename(Path(orders.folder) / "report")


def run_as_process(orders: Orders) -> None:
    """`main` as all that this process does; nothing is shut down at its end."""
    with (Path(orders.folder) / "output").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    status = 1
    try:
        main(orders)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    run_as_process(Orders(**json.loads(sys.argv[1])))
