"""The first launch on a PostgreSQL server that has no database for it yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import sagas
from sagas import SagaClient, SagaStatus, SagaUsageError, saga
from steps import step

from ..conftest import _admin, _named


@step
def act() -> str:
    return "acted"


@saga(name="new-database-acting")
def acting() -> str:
    return act()


@pytest.fixture
def missing(postgres_server: str) -> Iterator[str]:
    """The URL of a database that does not exist."""
    name = f"new_{uuid.uuid4().hex[:12]}"
    yield _named(postgres_server, name)
    _admin(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.slow
def test_the_database_is_made(missing: str) -> None:
    """`launch` makes the database it needs, and holds its name in it like any other."""
    settings = {"name": "test-app", "system_database_url": missing, "log_level": "CRITICAL"}
    with sagas.launch({**settings, "dbos_system_schema": "own"}) as application:
        assert application.config["executor_id"] == "local"
        assert acting.options(saga_id="first").run() == "acted"
        with SagaClient() as client:
            assert client.get("first").status is SagaStatus.COMPLETED
    engine = sa.create_engine(sa.make_url(missing).set(drivername="postgresql+psycopg"))
    assert {"own"} == {"own", "dbos"} & set(sa.inspect(engine).get_schema_names())
    engine.dispose()


def test_a_database_that_may_not_be_made(missing: str) -> None:
    """Where DBOS is told to migrate nothing, a missing database is an error that names it."""
    settings = {"name": "test-app", "system_database_url": missing, "log_level": "CRITICAL"}
    with pytest.raises(SagaUsageError, match="does not exist"):
        sagas.launch({**settings, "run_migrations": False})
    assert sagas._launch.launched() is None
