"""Several worker processes on one PostgreSQL queue: sagas a second, beside those by hand."""

from __future__ import annotations

import contextlib
import gc
import math
import time

from dbos import DBOSClient, WorkflowHandle

from .application import Application
from .databases import Databases, config, engine
from .figures import Round, compare
from .report import Report
from .rounds import IN_FLIGHT, WrongResult
from .sides import QUEUE, SIDES, SideName, side

PROCESSES = (1, 2, 3)
COUNT = 128
"""Sagas in a round."""

COLUMNS = ("processes", "ours", "theirs", "ratio", "low", "high", "cpu_ratio")


def run(databases: Databases, *, quick: bool) -> Report:
    """One, two and three processes, with 32 sagas in flight in all."""
    report = Report("workers", COLUMNS)
    for processes in PROCESSES:
        url = databases.make("postgres")
        workers: list[Application] = []
        with contextlib.ExitStack() as stack:
            # One after another: the first makes the tables.
            for number in range(processes):
                settings = config(url, executor_id=f"worker-{number}")
                application = Application(settings, math.ceil(IN_FLIGHT / processes))
                workers.append(stack.enter_context(application))
            client = DBOSClient(system_database_url=url)
            stack.callback(client.destroy)
            found = _in_turn(client, workers, url, pairs=4 if quick else 20)
            report.add(processes=processes, **compare(*found).as_dict())
    return report


def _in_turn(
    client: DBOSClient, workers: list[Application], url: str, pairs: int
) -> tuple[list[Round], list[Round]]:
    for name in SIDES:
        _round(client, workers, url, name)
    measured: dict[SideName, list[Round]] = {name: [] for name in SIDES}
    for pair in range(pairs):
        for name in SIDES if pair % 2 else SIDES[::-1]:
            measured[name].append(_round(client, workers, url, name))
    return measured["saga"], measured["by-hand"]


def _round(client: DBOSClient, workers: list[Application], url: str, name: SideName) -> Round:
    """Show the workers a full queue at one blow, and wait until it is empty."""
    gc.collect()
    ids = []
    database = engine(url)
    with database.begin() as connection:
        for _ in range(COUNT):
            handle: WorkflowHandle[str] = client.enqueue_in_transaction(
                connection, {"workflow_name": side(name).workflow, "queue_name": QUEUE}, 7
            )
            ids.append(handle.workflow_id)
    database.dispose()
    began, cpu = time.perf_counter(), _cpu(workers)
    while client.list_workflows(
        queue_name=QUEUE,
        status=["ENQUEUED", "PENDING"],
        limit=1,
        load_input=False,
        load_output=False,
    ):
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    done = client.list_workflows(workflow_ids=ids, status="SUCCESS", load_input=False)
    if len(done) != COUNT:
        raise WrongResult(f"{len(done)} of {COUNT} succeeded on the side {name!r}")
    return Round(COUNT, seconds, _cpu(workers) - cpu)


def _cpu(workers: list[Application]) -> float:
    return sum(worker.call(time.process_time) for worker in workers)
