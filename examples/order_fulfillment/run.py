"""The databases of one run of the demo: made before it, removed after it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

SYSTEM_DATABASE = "DBOS_SYSTEM_DATABASE_URL"


class DemoFailedError(Exception):
    """The demo did not show what it is there to show."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo."""

    name: str
    """Names its executor, and begins its saga IDs."""
    folder: Path
    """Its log, and its databases where they are SQLite's."""
    system_url: str
    """DBOS's database: the sagas."""
    services_url: str
    """The services' database: stock, payments, shipments, messages."""
    schema: str | None
    """Where the services' tables are a schema beside the sagas, on PostgreSQL, its name."""

    @property
    def log(self) -> Path:
        """What the workers write."""
        return self.folder / "worker.log"

    @property
    def place(self) -> str:
        """Where its databases are, for people."""
        if self.schema is None:
            return str(self.folder)
        url = sa.make_url(self.system_url).render_as_string(hide_password=True)
        return f"schema {self.schema!r} of {url}; log: {self.log}"


@contextmanager
def fresh_run(*, keep: bool) -> Iterator[Run]:
    """
    Databases for one run.

    The sagas go where `DBOS_SYSTEM_DATABASE_URL` says, else into a SQLite file. On PostgreSQL the
    services get a schema of their own in that database, else a SQLite file.

    Args:
        keep: Leave the services' data, and the files, where they are. They also stay when the
            run fails. Sagas in a database that was given always stay.
    """
    name = f"demo-{uuid.uuid4().hex[:6]}"
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    run = _plan(name, folder, os.environ.get(SYSTEM_DATABASE))
    if run.schema is not None:
        _execute(run.system_url, f"CREATE SCHEMA {run.schema}")
    yield run
    if keep:
        return
    if run.schema is not None:
        _execute(run.system_url, f"DROP SCHEMA {run.schema} CASCADE")
    shutil.rmtree(folder, ignore_errors=True)


def _plan(name: str, folder: Path, given: str | None) -> Run:
    system_url = given or f"sqlite:///{folder / 'sagas.sqlite'}"
    url = sa.make_url(system_url)
    if url.get_backend_name() == "sqlite":
        services_url = f"sqlite:///{folder / 'services.sqlite'}"
        return Run(name, folder, system_url, services_url, schema=None)
    schema = name.replace("-", "_")
    services = url.set(drivername="postgresql+psycopg").update_query_dict(
        {"options": f"-csearch_path={schema}"}
    )
    return Run(name, folder, system_url, services.render_as_string(hide_password=False), schema)


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()
