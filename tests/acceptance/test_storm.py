"""Sagas in a storm of kills, cancels, deadlines and database failures: all end right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.chaos import ALL
from tests.support.weather import Storm

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SAGAS, SECONDS = (600, 150.0) if ALL else (40, 8.0)


def test_a_storm(backend: str, database: str, tmp_path: Path) -> None:
    """No effect of a failed saga stands, none of a completed one is missing, and none is stuck."""
    workers = 1 if backend == "sqlite" else 3
    storm = Storm(database, tmp_path, workers=workers, seed=7)
    record = storm.run(SAGAS, SECONDS)
    print(json.dumps({"backend": backend, **record.summary()}))
    assert record.wrong == []
    assert record.states["COMPLETED"]
    assert record.states["FAILED"]
    assert record.states.total() == SAGAS
    assert sa.make_url(database).get_backend_name().startswith(backend[:6])
