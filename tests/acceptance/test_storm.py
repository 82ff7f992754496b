"""Sagas in a storm of kills, cancels, deadlines and database failures: all end right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import run_dbos_database_migrations

from tests.support.chaos import ALL
from tests.support.server import private_server
from tests.support.weather import Storm

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SAGAS, SECONDS = (600, 150.0) if ALL else (40, 8.0)

Place = tuple[str, Callable[[], None] | None]


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A database, and what restarts its server; None where it is shared, or a file."""
    if not ALL or backend == "sqlite":
        yield request.getfixturevalue("database"), None
        return
    chance = random.Random(7)
    with private_server() as server:
        run_dbos_database_migrations(server.url)

        def restart() -> None:
            server.stop(chance.choice(("fast", "immediate")))
            server.start()

        yield server.url, restart


def test_a_storm(backend: str, place: Place, tmp_path: Path) -> None:
    """No effect of a failed saga stands, none of a completed one is missing, and none is stuck."""
    database, restart = place
    workers = 1 if backend == "sqlite" else 3
    storm = Storm(database, tmp_path, workers=workers, seed=7, restart=restart)
    record = storm.run(SAGAS, SECONDS)
    print(json.dumps({"backend": backend, **record.summary()}))
    assert record.wrong == []
    assert record.states["COMPLETED"]
    assert record.states["FAILED"]
    assert record.states.total() == SAGAS
    assert (record.events["restart"] > 0) is (restart is not None)
    assert sa.make_url(database).get_backend_name().startswith(backend[:6])
