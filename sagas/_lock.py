"""
One process for one executor ID.

At launch DBOS resumes every saga of its executor ID, also those that another living process of
the same ID is running. So each process holds a lock in that name: with SQLite an exclusive
transaction on a file beside the database, with PostgreSQL a session advisory lock. Either ends
with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from typing import Any, Protocol

import sqlalchemy as sa

from ._config import safe
from ._errors import SagaUsageError

PATIENCE = 5.0
"""Seconds to wait for a predecessor that was killed: the server may not have noticed yet."""


class ExecutorLock(Protocol):
    """A held lock."""

    def release(self) -> None:
        """Let another process have it."""


class _FileLock:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def release(self) -> None:
        self._connection.close()


class _SessionLock:
    def __init__(self, engine: sa.Engine, connection: sa.Connection) -> None:
        self._engine = engine
        self._connection = connection

    def release(self) -> None:
        try:
            self._connection.close()
        finally:
            self._engine.dispose()


def _refusal(executor_id: str, url: str) -> SagaUsageError:
    if url.startswith("sqlite"):
        return SagaUsageError(
            f"Another process runs sagas on {safe(url)}, as executor {executor_id!r} or another. A "
            f"SQLite file serves one process: stop that one, or use PostgreSQL."
        )
    return SagaUsageError(
        f"Another process is running as executor {executor_id!r} on {safe(url)}. Both would run "
        f"the same sagas. Stop it, or give each process a name of its own: "
        f"launch(executor_id=...)."
    )


def acquire(url: str, app: str, executor_id: str) -> ExecutorLock | None:
    """
    Take the lock of an executor.

    Returns:
        None where there is nothing to lock: a database in memory.

    Raises:
        SagaUsageError: Another process holds it.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "cockroachdb":
        return None  # it grants every advisory lock
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            return None
        return _lock_file(f"{parsed.database}.lock", executor_id, url)
    return _lock_session(parsed, app, executor_id, url)


def _lock_file(path: str, executor_id: str, url: str) -> ExecutorLock:
    connection = sqlite3.connect(
        path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        raise _refusal(executor_id, url) from error
    return _FileLock(connection)


def _lock_session(parsed: sa.URL, app: str, executor_id: str, url: str) -> ExecutorLock:
    engine = sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"application_name": f"sagas executor {executor_id}"[:63]},
    )
    connection = engine.connect()
    deadline = time.monotonic() + PATIENCE
    while not _try_lock(connection, app, executor_id):
        if time.monotonic() > deadline:
            connection.close()
            engine.dispose()
            raise _refusal(executor_id, url)
        time.sleep(0.2)
    return _SessionLock(engine, connection)


def lock_key(app: str, executor_id: str) -> int:
    """The advisory lock's key: 64 bits, signed."""
    digest = hashlib.sha256(f"sagas.executor\x00{app}\x00{executor_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _try_lock(connection: Any, app: str, executor_id: str) -> bool:
    query = sa.text("SELECT pg_try_advisory_lock(:key)")
    return bool(connection.execute(query, {"key": lock_key(app, executor_id)}).scalar())
