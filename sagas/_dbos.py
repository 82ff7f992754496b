"""
DBOS, as sagas use it. The only file of this package that imports it.

A claim about DBOS that this file relies on has a test in `tests/integration/test_dbos.py`.

DBOS records most of its own calls as steps of the workflow they are made in. What this library
asks for itself must not become part of a saga, so it asks from an empty context: `outside`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from datetime import datetime
from typing import Any, TypeVar, cast

from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfig,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
)
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from steps import _dbos as steps_dbos

T = TypeVar("T")

LOST = (dbos_error.DBOSWorkflowCancelledError, dbos_error.DBOSWorkflowConflictIDError)
"""Raised where an execution may record no more: cancelled, or superseded by another."""

MISMATCH = (
    dbos_error.DBOSUnexpectedStepError,
    dbos_error.DBOSStepNondeterminismError,
    dbos_error.DBOSPatchNondeterminismError,
)
"""Raised where a replay does not match the history."""

UNAVAILABLE = (SQLAlchemyError, dbos_error.DBOSException)
"""Raised where the database fails in a way that DBOS does not wait out, or is closed."""

AwaitedEnd = (
    dbos_error.DBOSAwaitedWorkflowCancelledError,
    dbos_error.DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded,
)
"""Raised to whoever waits for a workflow that DBOS cancelled or gave up."""

CONFIG_KEYS = frozenset(DBOSConfig.__annotations__)
"""What a `DBOSConfig` may hold."""

RESERVED_QUEUES = "_dbos_"
"""What the names of DBOS's own queues begin with."""

InUse = dbos_error.DBOSWorkflowIDInUseError
Deduplicated = dbos_error.DBOSQueueDeduplicatedError
DBOSError = dbos_error.DBOSException

Api = type[DBOS] | DBOSClient
"""What workflows are looked at and controlled by: DBOS in a launched process, or a client."""

API: Api = DBOS


def outside(fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `fn` as if no workflow were running here."""
    return Context().run(fn, *args, **kwargs)


async def outside_async(fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a blocking `fn` on a thread, as if no workflow were running here."""
    return await asyncio.to_thread(outside, fn, *args, **kwargs)


run = steps_dbos.run
run_async = steps_dbos.run_async
receive = steps_dbos.receive
receive_async = steps_dbos.receive_async
reserve = steps_dbos.reserve
make_database = DBOS.migrate


def now() -> int:
    """The time, in milliseconds since the epoch, as DBOS counts it."""
    return int(time.time() * 1000)


def workflow_id() -> str | None:
    """The ID of the workflow that is running here, in its body or in a step."""
    return DBOS.workflow_id


def in_step() -> bool:
    """Whether a step is running here."""
    return DBOS.step_id is not None


def register(
    fn: Callable[..., Any],
    name: str,
    max_recovery_attempts: int | None,
    validate_args: Callable[[Any, Any], Any] | None = None,
) -> Callable[..., Any]:
    """Make `fn` a DBOS workflow."""
    decorate = DBOS.workflow(
        name=name, max_recovery_attempts=max_recovery_attempts, validate_args=validate_args
    )
    with _muted_duplicates():
        return decorate(fn)


@contextlib.contextmanager
def _muted_duplicates() -> Iterator[None]:
    """Without DBOS's warning of a second registration: `Names` has judged it already."""

    def quiet(record: logging.LogRecord) -> bool:
        return "Duplicate registration" not in record.getMessage()

    logger: logging.Logger = DBOS.logger
    logger.addFilter(quiet)
    try:
        yield
    finally:
        logger.removeFilter(quiet)


@contextlib.contextmanager
def starting(saga_id: str, attributes: Mapping[str, Any] | None) -> Iterator[None]:
    """Start what is started within under this ID; an ID in use is refused (`InUse`)."""
    with contextlib.ExitStack() as options:
        options.enter_context(SetWorkflowID(saga_id, workflow_id_reuse_policy="reject"))
        if attributes:
            options.enter_context(SetWorkflowAttributes(dict(attributes)))
        yield


def enqueue(
    queue: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    priority: int | None,
    delay: float | None,
    deduplication_id: str | None,
) -> None:
    """Enqueue a workflow."""
    with SetEnqueueOptions(
        priority=priority, delay_seconds=delay, deduplication_id=deduplication_id
    ):
        DBOS.enqueue_workflow(queue, fn, *args, **kwargs)


_known_queues: set[str] = set()


def queue_exists(name: str) -> bool:
    """Whether some application has registered this queue; asked once for each that is there."""
    if name not in _known_queues and outside(DBOS.retrieve_queue, name) is not None:
        _known_queues.add(name)
    return name in _known_queues


async def start_async(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Start an async workflow on this event loop; returns DBOS's handle."""
    return await DBOS.start_workflow_async(fn, *args, **kwargs)


def on_dbos_loop(fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `fn`, in the caller's context, on the event loop on which DBOS runs async workflows."""
    context = copy_context()  # a `SetWorkflowTimeout` around a start, say

    async def on_loop() -> T:
        return await asyncio.get_running_loop().create_task(fn(), context=context)

    # In no workflow `run_step` records nothing; it only picks the loop.
    return cast(T, outside(DBOS.run_step, None, on_loop))


def status(saga_id: str) -> Any:
    """The workflow's row, or None."""
    return DBOS.get_workflow_status(saga_id)


def light_row(saga_id: str) -> Any:
    """The workflow's row without its arguments and result, which may be large; None: it is gone."""
    rows = DBOS.list_workflows(workflow_ids=[saga_id], load_input=False, load_output=False)
    return rows[0] if rows else None


def light_rows(saga_ids: Sequence[str]) -> list[Any]:
    """The rows of these workflows that there are, likewise."""
    return list(
        DBOS.list_workflows(workflow_ids=list(saga_ids), load_input=False, load_output=False)
    )


def rows_with(attributes: Mapping[str, Any], executor_id: str) -> list[Any]:
    """The running workflows of an executor that have these attributes; on PostgreSQL only."""
    return list(
        DBOS.list_workflows(
            status="PENDING",
            executor_id=executor_id,
            attributes=dict(attributes),
            load_input=False,
            load_output=False,
        )
    )


STOPPED = ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""What DBOS calls workflows that it has stopped where they stand."""


def stopped_rows(names: Sequence[str], since: datetime | None) -> list[Any]:
    """The workflows of these names that DBOS has stopped, since a moment."""
    return list(
        DBOS.list_workflows(
            name=list(names),
            status=list(STOPPED),
            completed_after=None if since is None else since.isoformat(),
            load_input=False,
            load_output=False,
        )
    )


def active_rows(names: Sequence[str], limit: int) -> list[Any]:
    """Workflows of these names that have not ended."""
    return list(
        DBOS.list_workflows(
            name=list(names),
            status=["PENDING", "ENQUEUED", "DELAYED"],
            limit=limit,
            load_input=False,
            load_output=False,
        )
    )


def arguments_of(name: str) -> list[tuple[Any, ...]]:
    """What the workflows of a name were given."""
    rows = DBOS.list_workflows(name=name, load_output=False)
    return [row.input["args"] for row in rows if row.input is not None and row.input["args"]]


def app_version() -> str:
    """The application version that this process runs."""
    return str(DBOS.application_version)


def executor_id() -> str:
    """The executor that this process is."""
    return DBOS.executor_id


def list_step_names(saga_id: str) -> list[str]:
    """The names of the workflow's recorded steps, by ID."""
    return [row["function_name"] for row in DBOS.list_workflow_steps(saga_id, load_output=False)]


def recorded_wake_time(saga_id: str, step_id: int) -> float | None:
    """The end of a wait, in seconds since the epoch, as DBOS recorded it when the wait began."""
    for row in list_steps(saga_id):
        if row["function_id"] == step_id and isinstance(row["output"], int | float):
            return float(row["output"])
    return None


def send(saga_id: str, message: Any, topic: str) -> None:
    """Send a message to a workflow."""
    DBOS.send(saga_id, message, topic)


def list_steps(saga_id: str) -> list[Any]:
    """The workflow's recorded steps, by ID."""
    return list(DBOS.list_workflow_steps(saga_id))


def mark(saga_id: str, attributes: Mapping[str, Any]) -> None:
    """Merge marks into the workflow's attributes."""
    DBOS.update_workflow_attributes(saga_id, dict(attributes), merge=True)


def cancel(saga_id: str) -> None:
    """Have DBOS cancel the workflow: nothing of it is recorded from here on."""
    DBOS.cancel_workflow(saga_id)


def resume(saga_id: str, queue: str | None = None) -> None:
    """Have DBOS run the workflow again, from `queue` or its own, unless it has an outcome."""
    DBOS.resume_workflow(saga_id, queue_name=queue)


def pending_rows(
    names: Sequence[str],
    app: str,
    app_version: str,
    *,
    executor_id: str | None = None,
    limit: int | None = None,
) -> list[Any]:
    """
    The rows of an application's running workflows of these names, likewise; the oldest first.

    Those of one version, and of one executor, or of all (None); at most so many, or all.
    """
    if not names:
        return []  # to DBOS no name is every name
    rows = DBOS.list_workflows(
        status="PENDING",
        name=list(names),
        application_name=app,
        app_version=app_version,
        executor_id=executor_id,
        limit=limit,
        load_input=False,
        load_output=False,
    )
    return [row for row in rows if row.application_name == app]  # DBOS adds those of no application


def queue_of(row: Any) -> str | None:
    """The queue that a workflow was dequeued from; None where that is DBOS's own, or none."""
    queue: str | None = row.queue_name
    return None if queue is None or queue.startswith(RESERVED_QUEUES) else queue


def client(url: str, schema: str | None = None, serializer: Any = None) -> DBOSClient:
    """A client of a system database."""
    options = {} if serializer is None else {"serializer": serializer}
    return DBOSClient(
        system_database_url=url,
        dbos_system_schema=schema or "dbos",
        retry_connection_errors=False,
        **options,
    )


def launch(config: Mapping[str, Any]) -> None:
    """Start DBOS."""
    DBOS(config=cast(DBOSConfig, dict(config)))
    DBOS.launch()


def destroy() -> None:
    """Stop DBOS."""
    global _seen_launched
    _seen_launched = False
    _known_queues.clear()
    DBOS.destroy()


_seen_launched = False


def is_launched() -> bool:
    """Whether DBOS is launched in this process, by whomever."""
    if not _seen_launched:
        probe = threading.Thread(target=_probe)  # as DBOS refuses to block an event loop
        probe.start()
        probe.join()
    return _seen_launched


def _probe() -> None:
    global _seen_launched
    try:
        DBOS.retrieve_queue("sagas.launched")
    except dbos_error.DBOSException:
        return
    _seen_launched = True


def named_executor(config: Mapping[str, Any]) -> str | None:
    """The executor ID that somebody has given to this process; None: DBOS would take "local"."""
    return config.get("executor_id") or os.environ.get("DBOS__VMID") or None


def publish_catalog(
    workflow: Callable[[list[str]], list[str]], catalog_id: str, names: Sequence[str]
) -> None:
    """Start `workflow` under a fixed ID, where it has not been yet."""
    with SetWorkflowID(catalog_id):
        DBOS.start_workflow(workflow, list(names))


def workflow_id_or(default: str) -> str:
    """The ID of the workflow that is running here; `default` on a thread that DBOS knows not."""
    return workflow_id() or default
