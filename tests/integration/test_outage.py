"""A database that fails in the middle of a step: nothing is parked or undone for it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import sagas
from sagas import SagaStatus, saga
from steps import step

from .support import Ledger, resume, until

LEDGER = Ledger()


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def two_acts() -> str:
    act("a")
    act("b")
    return "done"


class FailingOnce:
    """Refuses the first record of a step of one saga, as a database in trouble does."""

    def __init__(self, saga_id: str) -> None:
        self._saga_id = saga_id
        self.failed = 0

    def _see(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        record = "INSERT INTO" in statement and "operation_outputs" in statement
        if record and self._saga_id in str(parameters) and not self.failed:
            self.failed += 1
            raise sa.exc.OperationalError(statement, {}, psycopg.OperationalError("refused"))

    def __enter__(self) -> FailingOnce:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self._see)


def test_a_step_that_the_database_refuses_is_no_failure(shared_app: sagas.Launched) -> None:
    """A saga that cannot be recorded is neither undone nor parked, and goes on when resumed."""
    with FailingOnce("refused") as database:
        handle = two_acts.options(saga_id="refused").start()
        until(lambda: database.failed)
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.3)
    assert handle.status() is SagaStatus.PENDING
    assert LEDGER == ["a"]
    resume("refused")
    assert handle.result() == "done"
    assert LEDGER == ["a", "a", "b"]
