"""
One process for one executor ID.

At launch DBOS resumes every saga of its executor ID, also those that another living process of
the same ID is running. So each process holds a lock in that name: with SQLite an exclusive
transaction on a file beside the database, with PostgreSQL a session advisory lock. Either ends
with the process, however that ends.

On PostgreSQL a process that nobody has named takes the first name that is free. So one that is
started again after a crash gets the name of one that is gone, and DBOS resumes its sagas at once.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from ._config import safe
from ._errors import SagaUsageError
from ._session import Hold, Session, SessionLock, lock_key

PATIENCE = 5.0
"""Seconds to wait for a predecessor that was killed: the server may not have noticed yet."""

DEFAULT = "local"
"""The name of an executor that nobody has named, as in DBOS."""

MOST = 1000
"""How many processes without a name there can be: local, local-2, local-3, ..."""


class ExecutorLock(Protocol):
    """A held lock."""

    @property
    def executor_id(self) -> str:
        """The name that is held."""
        ...

    def maintain(self) -> Hold:
        """See that it is held still."""
        ...

    def release(self) -> None:
        """Let another process have it."""
        ...


class FileLock:
    """The lock beside a SQLite file."""

    def __init__(self, connection: sqlite3.Connection, executor_id: str) -> None:
        self._connection = connection
        self.executor_id = executor_id

    def maintain(self) -> Hold:
        """Nothing but the end of the process takes it away."""
        return Hold.HELD

    def release(self) -> None:
        """Let another process have it."""
        self._connection.close()


def acquire(url: str, app: str, executor_id: str | None) -> ExecutorLock | None:
    """
    Take the lock of an executor.

    Args:
        url: The system database's.
        app: The application's name.
        executor_id: The executor's; None: nobody has named it.

    Returns:
        None where there is nothing to lock: a database in memory; CockroachDB, which grants every
        advisory lock.

    Raises:
        SagaUsageError: Another process holds it, or the database does not answer.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "cockroachdb":
        return None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            return None
        return _lock_file(f"{parsed.database}.lock", executor_id or DEFAULT, url)
    return _lock_session(parsed, app, executor_id)


def _lock_file(path: str, executor_id: str, url: str) -> FileLock:
    connection = sqlite3.connect(
        path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        raise SagaUsageError(
            f"Another process runs sagas on {safe(url)}, as executor {executor_id!r} or another. A "
            f"SQLite file serves one process: stop that one, or use PostgreSQL."
        ) from error
    return FileLock(connection, executor_id)


def _lock_session(url: sa.URL, app: str, executor_id: str | None) -> SessionLock:
    where = url.render_as_string(hide_password=True)
    try:
        session = Session(url)
    except SQLAlchemyError as error:
        raise SagaUsageError(f"The system database {where} cannot be used: {error}") from error
    try:
        if executor_id is None:
            executor_id = _first_free(session, app, where)
        else:
            _wait_for(session, app, executor_id, where)
        return SessionLock(session, url, app, executor_id)
    except BaseException:
        session.close()
        raise


def _first_free(session: Session, app: str, where: str) -> str:
    for number in range(1, MOST + 1):
        name = DEFAULT if number == 1 else f"{DEFAULT}-{number}"
        if session.try_lock(lock_key(app, name)):
            return name
    raise SagaUsageError(
        f"{MOST} processes of {app!r} without a name of their own run on {where}. Stop some, or "
        f"name this one: launch(executor_id=...)."
    )


def _wait_for(session: Session, app: str, executor_id: str, where: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not session.try_lock(lock_key(app, executor_id)):
        if time.monotonic() > deadline:
            raise SagaUsageError(
                f"Another process is running as executor {executor_id!r} on {where}. Both would "
                f"run the same sagas. Stop it, or give each process a name of its own: "
                f"launch(executor_id=...)."
            )
        time.sleep(0.2)
