"""Much at once: sagas that wait, a saga of many steps, a list of many finished sagas."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS

from sagas import SagaClient, SagaFailedError, SagaStatus

from . import long_sagas, orders
from .application import Application
from .databases import BACKENDS, Databases, config, engine
from .report import Report, Row
from .rounds import WrongResult
from .sides import SIDES, SideName

COLUMNS = ("what", "database", "side", "count", "seconds", "kib_each", "detail")

FAILED_OF = 10
"""One of so many finished sagas has failed."""


def run(databases: Databases, *, quick: bool) -> Report:
    """All of it."""
    report = Report("scale", COLUMNS)
    tenth = 10 if quick else 1
    for name in SIDES:
        with Application(config(databases.make("postgres"))) as application:
            for row in application.call(_waiting, name, 10_000 // tenth):
                report.add(what="waiting sagas", database="postgres", side=name, **row)
    for backend in BACKENDS:
        with Application(config(databases.make(backend))) as application:
            for fail in (False, True):
                for name in SIDES:
                    row = application.call(_many_steps, name, 1000 // tenth, fail)
                    report.add(what="steps of one saga", database=backend, side=name, **row)
        url = databases.make(backend)
        with Application(config(url)) as application:
            for row in application.call(_list, url, 100_000 // tenth):
                report.add(what="finished sagas", database=backend, side="saga", **row)
    return report


def _resident_kib() -> float:
    """Memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def _waiting(name: SideName, count: int) -> list[Row]:
    """Start so many sagas, let them all wait, and let them go."""
    with asyncio.Runner() as runner:
        return runner.run(_waiting_on_loop(name, count))


async def _waiting_on_loop(name: SideName, count: int) -> list[Row]:
    long_sagas.gate = asyncio.Event()
    numbers = iter(range(count))
    handles: list[Any] = []

    async def start_some() -> None:
        for number in numbers:
            if name == "saga":
                handles.append(await long_sagas.waiting.start_async(number))
            else:
                handles.append(await DBOS.start_workflow_async(long_sagas.waiting_by_hand, number))

    before, began = _resident_kib(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(start_some())
    started = time.perf_counter() - began
    each = (_resident_kib() - before) / count
    began = time.perf_counter()
    long_sagas.gate.set()
    ends = [h.result_async() if name == "saga" else h.get_result() for h in handles]
    results = await asyncio.gather(*ends)
    if sorted(results) != list(range(count)):
        raise WrongResult("not every waiting saga returned its number")
    ended = time.perf_counter() - began
    return [
        {"count": count, "seconds": started, "kib_each": each, "detail": "all started"},
        {"count": count, "seconds": ended, "detail": "from the signal to the last result"},
    ]


def _many_steps(name: SideName, count: int, fail: bool) -> Row:
    """One saga of so many steps, which perhaps are all undone."""
    run_one: Callable[[int, bool], int] = (
        long_sagas.many_steps if name == "saga" else long_sagas.many_steps_by_hand
    )
    run_one(20, False)  # warm
    before, began = _resident_kib(), time.perf_counter()
    try:
        if run_one(count, fail) != count or fail:
            raise WrongResult("not every step was done")
    except (SagaFailedError, orders.Refused) as error:
        if isinstance(error, SagaFailedError) and len(error.undone) != count:
            raise WrongResult("not every step was undone") from error
    seconds = time.perf_counter() - began
    return {
        "count": count,
        "seconds": seconds,
        "kib_each": (_resident_kib() - before) / count,
        "detail": "failed at the end and undone" if fail else "completed",
    }


def _list(url: str, count: int) -> list[Row]:
    """Look at so many finished sagas in several ways."""
    copied = _finish_many(url, count)
    rows: list[Row] = [{"count": count, "seconds": copied, "detail": "copied by SQL"}]
    failed = count // FAILED_OF
    looks: list[tuple[str, dict[str, Any], int]] = [
        ("list(limit=100)", {"limit": 100}, 100),
        ("list(status=COMPLETED, limit=100)", {"status": SagaStatus.COMPLETED, "limit": 100}, 100),
        ("list(status=FAILED, limit=100)", {"status": SagaStatus.FAILED, "limit": 100}, 100),
        ("list(status=PARKED), none is", {"status": SagaStatus.PARKED}, 0),
        ("list(status=COMPENSATING), none is", {"status": SagaStatus.COMPENSATING}, 0),
        ("list(status=FAILED), all", {"status": SagaStatus.FAILED, "limit": count}, failed),
        ("list(), all", {"limit": count}, count),
    ]
    with SagaClient() as client:
        for detail, options, expected in looks:
            before, began = _resident_kib(), time.perf_counter()
            found = client.list(name=orders.fulfil, **options)
            seconds = time.perf_counter() - began
            if abs(len(found) - expected) > 2:
                raise WrongResult(f"{detail}: {len(found)}, not {expected}")
            each = (_resident_kib() - before) / len(found) if len(found) > 1000 else None
            rows.append({"count": count, "seconds": seconds, "kib_each": each, "detail": detail})
        began = time.perf_counter()
        client.get("copy-5")
        rows.append({"count": count, "seconds": time.perf_counter() - began, "detail": "get()"})
    return rows


def _finish_many(url: str, count: int) -> float:
    """Fill the tables with copies of a completed and a failed saga; how long that took."""
    orders.fulfil.options(saga_id="completed").run(7)
    with contextlib.suppress(SagaFailedError):
        orders.fulfil.options(saga_id="failed").run(-7)
    began = time.perf_counter()
    database = engine(url)
    sqlite = database.dialect.name == "sqlite"
    with database.begin() as connection:
        for table in ("workflow_status", "workflow_input", "workflow_output"):
            connection.execute(
                sa.text(_copies(connection, table, sqlite)), {"count": count, "of": FAILED_OF}
            )
    with database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))
    database.dispose()
    return time.perf_counter() - began


def _copies(connection: sa.Connection, table: str, sqlite: bool) -> str:
    """
    The statement that copies one saga's row so many times.

    The copies are called `copy-<n>` and were created a millisecond after one another.
    """
    schema = None if sqlite else "dbos"
    columns = [c["name"] for c in sa.inspect(connection).get_columns(table, schema=schema)]
    values = {"workflow_uuid": "'copy-' || n", "created_at": "created_at + n"}
    into = ", ".join(f'"{c}"' for c in columns)
    selected = ", ".join(values.get(c, f'"{c}"') for c in columns)
    name = table if schema is None else f"{schema}.{table}"
    return f"""
        WITH RECURSIVE numbers(n) AS (
            SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count
        )
        INSERT INTO {name} ({into})
        SELECT {selected} FROM numbers JOIN {name} AS original ON original.workflow_uuid =
            CASE WHEN n % :of = 0 THEN 'failed' ELSE 'completed' END
    """
