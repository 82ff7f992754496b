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
from dbos import DBOS
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

SYSTEM_DATABASE = "DBOS_SYSTEM_DATABASE_URL"
SERVICES_DATABASE = "ORDERS_DATABASE_URL"
RUN = "ORDERS_RUN"
"""The variables by which a worker learns where it is."""


def saga_id(run: str, order_id: str) -> str:
    """The ID of an order's saga; each run of the demo has its own."""
    return f"{run}-{order_id}"


class DemoFailedError(Exception):
    """The demo did not show what it is there to show."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo."""

    name: str
    """Names its application, and begins its saga IDs."""
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

    Raises:
        DemoFailedError: The database cannot be used; or the run failed, and now the message says
            where its databases are.
    """
    run = _plan(f"demo-{uuid.uuid4().hex[:6]}", os.environ.get(SYSTEM_DATABASE))
    _prepare(run)
    try:
        yield run
    except DemoFailedError as failure:
        raise DemoFailedError(f"{failure}\nKept for a look: {run.place}") from failure
    except BaseException:
        _remove(run)
        raise
    if not keep:
        _remove(run)


def _plan(name: str, given: str | None) -> Run:
    try:
        url = None if not given else sa.make_url(given)
    except ArgumentError as error:
        raise DemoFailedError(f"{SYSTEM_DATABASE} is no database URL: {error}") from error
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    system_url = given or f"sqlite:///{folder / 'sagas.sqlite'}"
    if url is None or url.get_backend_name() == "sqlite":
        services_url = f"sqlite:///{folder / 'services.sqlite'}"
        return Run(name, folder, system_url, services_url, schema=None)
    schema = name.replace("-", "_")
    services = url.set(drivername="postgresql+psycopg").update_query_dict(
        {"options": f"-csearch_path={schema}"}
    )
    return Run(name, folder, system_url, services.render_as_string(hide_password=False), schema)


def _prepare(run: Run) -> None:
    try:
        # As in production: the tables are made before any worker starts (`dbos migrate`).
        DBOS.migrate(run.system_url)
        if run.schema is not None:
            _execute(run.system_url, f"CREATE SCHEMA {run.schema}")
    except SQLAlchemyError as error:
        shutil.rmtree(run.folder)
        url = sa.make_url(run.system_url).render_as_string(hide_password=True)
        cause = getattr(error, "orig", None) or error
        raise DemoFailedError(f"The database {url} cannot be used: {cause}") from error


def _remove(run: Run) -> None:
    if run.schema is not None:
        _execute(run.system_url, f"DROP SCHEMA {run.schema} CASCADE")
    shutil.rmtree(run.folder, ignore_errors=True)


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()
