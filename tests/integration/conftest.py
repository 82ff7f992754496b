"""What the tests of requests to sagas share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sagas import SagaClient

from . import stage


@pytest.fixture
def clear_stage() -> Iterator[None]:
    """A stage on which nothing has happened yet."""
    stage.STAGE.reset()
    yield
    stage.STAGE.let_go(*stage.STAGE._held)


@pytest.fixture(params=["sync", "async"])
def play(request: pytest.FixtureRequest, clear_stage: None) -> Any:
    """A saga that plays a script."""
    return stage.play if request.param == "sync" else stage.play_async


@pytest.fixture(params=["sync", "async"])
def play_on(request: pytest.FixtureRequest, clear_stage: None) -> Any:
    """A saga that plays a script, and goes on after an undo that failed."""
    return stage.play_on if request.param == "sync" else stage.play_on_async


@pytest.fixture
def asker(shared_app: Any) -> Iterator[SagaClient]:
    """A client of the shared application's database."""
    with SagaClient() as client:
        yield client
