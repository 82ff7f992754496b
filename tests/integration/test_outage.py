"""A database that refuses what DBOS does not try again: the supervisor does, and undoes nothing."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import sagas
from sagas import SagaClient, SagaStatus, saga
from steps import step

from .support import Ledger, names, until

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


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
async def act_async(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
async def two_acts_async() -> str:
    await act_async("a")
    await act_async("b")
    return "done"


@saga
def act_then_fail() -> None:
    act("a")
    raise ValueError("as planned")


@saga(max_recovery_attempts=2)
def never_recorded() -> str:
    act("a")
    return "done"


class Refusing:
    """Refuses records of steps of one saga, as a database in trouble does, so many times."""

    def __init__(self, saga_id: str, name: str, times: int = 1) -> None:
        self._saga_id = saga_id
        self._name = name
        self._left = times
        self.refused = 0

    def _see(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        text = str(parameters)
        record = "INSERT INTO" in statement and "operation_outputs" in statement
        if record and self._saga_id in text and self._name in text and self._left:
            self._left -= 1
            self.refused += 1
            raise sa.exc.OperationalError(statement, {}, psycopg.OperationalError("refused"))

    def __enter__(self) -> Refusing:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self._see)


@pytest.mark.slow
def test_a_step_that_the_database_refuses_is_no_failure(shared_app: sagas.Launched) -> None:
    """A saga whose step cannot be recorded is neither undone nor parked, and goes on by itself."""
    with Refusing("refused", "act") as database:
        handle = two_acts.options(saga_id="refused").start()
        assert handle.result(timeout=15) == "done"
    assert database.refused == 1
    assert LEDGER == ["a", "a", "b"]
    assert names("refused") == ["act", "act"]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_async_step_that_the_database_refuses_is_no_failure(
    shared_app: sagas.Launched, times: int
) -> None:
    """Where DBOS records its own failure as the step's, the saga parks: its effect may stand."""
    saga_id = f"refused-async-{times}"
    with Refusing(saga_id, "act_async", times) as database:
        handle = two_acts_async.options(saga_id=saga_id).start()
        if times == 2:  # that could not be recorded either
            assert handle.result(timeout=15) == "done"
            assert LEDGER == ["a", "a", "b"]
            return
        until(lambda: handle.status() is SagaStatus.PARKED)
    assert database.refused == 1
    state = handle.state()
    assert state.reason is not None
    assert "step 1 'act_async' ended, and the database refused to record how" in state.reason
    assert LEDGER == ["a"]
    with SagaClient() as client:
        assert client.resolve(saga_id, 1, note="taken back by hand").accepted
    until(lambda: handle.status() is SagaStatus.FAILED)
    assert LEDGER == ["a"]


@pytest.mark.slow
def test_an_undo_that_the_database_refuses_is_no_failure(shared_app: sagas.Launched) -> None:
    """A saga whose undo cannot be recorded goes on unwinding by itself."""
    with Refusing("refused-undo", "undo:1:act") as database:
        handle = act_then_fail.options(saga_id="refused-undo").start()
        until(lambda: handle.status() is SagaStatus.FAILED)
    assert database.refused == 1
    assert LEDGER == ["a", "undo a", "undo a"]
    assert names("refused-undo") == ["act", "undo:1:act"]


@pytest.mark.slow
def test_what_is_refused_for_ever_is_parked(
    shared_app: sagas.Launched, caplog: pytest.LogCaptureFixture
) -> None:
    """A saga that never gets on is not tried for ever; nothing is undone, `retry` takes it up."""
    with (
        caplog.at_level(logging.WARNING, "sagas"),
        Refusing("never", "act", times=1000) as database,
    ):
        handle = never_recorded.options(saga_id="never").start()
        until(lambda: handle.status() is SagaStatus.PARKED)
    assert database.refused == 3
    assert LEDGER == ["a"] * 3
    reason = handle.state().reason
    assert reason is not None
    assert "ended 2 times without an outcome" in reason
    with SagaClient() as client:
        assert client.retry("never").accepted
    assert handle.result(timeout=15) == "done"
    assert LEDGER == ["a"] * 4
