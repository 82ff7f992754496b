"""What the supervisor costs, and what it survives."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS
from sqlalchemy import event
from sqlalchemy.engine import Engine

import sagas
from sagas import SagaStatus, Supervision
from sagas._supervisor import Supervisor
from tests.support.stage import SAGAS, Scene

from .support import status, until

PATIENCE = 30.0
_numbers = itertools.count()
THREAD = "sagas-supervisor"


class Statements(list[str]):
    """What the supervisor asks of the database; refused while `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.refused = 0

    def before(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if threading.current_thread().name != THREAD:
            return
        if self.down:
            self.refused += 1
            raise sa.exc.ProgrammingError(statement, {}, Exception("injected"))
        self.append(statement)


@pytest.fixture
def statements() -> Iterator[Statements]:
    """The supervisor's statements, as they come."""
    found = Statements()
    event.listen(Engine, "before_cursor_execute", found.before)
    yield found
    event.remove(Engine, "before_cursor_execute", found.before)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each round of the supervisor ended."""
    ended: list[float] = []
    one = Supervisor.round

    def counted(self: Supervisor) -> None:
        one(self)
        ended.append(time.monotonic())

    monkeypatch.setattr(Supervisor, "round", counted)
    return ended


def per_round(statements: Statements, rounds: list[float]) -> float:
    """How many statements ten rounds take, each."""
    start = len(rounds)
    until(lambda: len(rounds) > start)
    before, began = len(statements), len(rounds)
    until(lambda: len(rounds) >= began + 10)
    return (len(statements) - before) / (len(rounds) - began)


@pytest.mark.slow
def test_an_idle_supervisor_asks_once_a_round(
    config: dict[str, Any], statements: Statements, rounds: list[float]
) -> None:
    """However many sagas have ended, however they did, it takes the same few statements."""
    sagas.launch(config, supervision=Supervision(interval=0.05, failover=None))
    idle = per_round(statements, rounds)
    assert idle <= 4  # one query, in a transaction with settings of its own
    for _ in range(10):
        scene = Scene(f"supervised-{next(_numbers)}")
        SAGAS["sync"].options(saga_id=scene.saga_id).run()
        scene = Scene(f"supervised-{next(_numbers)}", "receive")
        SAGAS["sync"].options(saga_id=scene.saga_id).start()
        scene.wait_until_at("receive")
        with sagas.SagaClient() as client:
            client.terminate(scene.saga_id)
        until(lambda scene=scene: status(scene.saga_id) is SagaStatus.TERMINATED)
    until(lambda: not sagas._running.count())  # type: ignore[attr-defined]
    assert per_round(statements, rounds) <= idle + 0.5


@pytest.mark.slow
def test_a_round_that_fails_is_not_the_last(
    config: dict[str, Any], statements: Statements, rounds: list[float]
) -> None:
    """What it could not do in an outage it does after it."""
    sagas.launch(config, supervision=Supervision(interval=0.05))
    scene = Scene(f"supervised-{next(_numbers)}", hold=("c",))
    SAGAS["sync"].options(saga_id=scene.saga_id).start()
    scene.wait_until_at("c")
    statements.down = True
    DBOS.cancel_workflow(scene.saga_id)
    scene.open("c")
    until(lambda: statements.refused >= 3)
    assert status(scene.saga_id) is SagaStatus.PENDING
    statements.down = False
    until(lambda: status(scene.saga_id) is SagaStatus.FAILED)
    assert scene.ledger == ["a", "b", "c", "-c", "-b", "-a"]


@pytest.mark.slow
def test_a_round_that_took_long_is_followed_by_the_next(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that waited out an outage does not make the supervisor rest for as long again."""
    rounds: list[float] = []

    def slow(self: Supervisor) -> None:
        time.sleep(1.0 if not rounds else 0.0)  # the outage; a rest in proportion would be 20 s
        rounds.append(time.monotonic())

    monkeypatch.setattr(Supervisor, "round", slow)
    sagas.launch(config, supervision=Supervision(interval=0.05))
    until(lambda: len(rounds) > 2, timeout=10)


def test_it_ends_with_the_application(config: dict[str, Any]) -> None:
    """shutdown() does not wait for its interval."""
    before = threading.enumerate()
    sagas.launch(config, supervision=Supervision(interval=3600))
    thread = next(t for t in threading.enumerate() if t.name == THREAD and t not in before)
    began = time.monotonic()
    sagas.shutdown()
    assert not thread.is_alive()
    assert time.monotonic() - began < 5
