"""What a newcomer runs into: event loops, exits, shortened code."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import (
    SagaCancelledError,
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaParkedError,
    SagaStatus,
    StepStatus,
    saga,
)
from steps import OutcomeUnknownError, step

from .support import Ledger, until

LEDGER = Ledger()
SWITCH: dict[str, Any] = {}
GATE = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    SWITCH.clear()
    GATE.clear()


@step(undo=lambda name: LEDGER.write(f"undo {name}"))
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step
async def slow_async() -> str:
    await asyncio.sleep(0.4)
    return "slept"


@saga
async def two_slow_steps() -> str:
    await slow_async()
    return await slow_async()


def test_on_an_event_loop(config: dict[str, Any]) -> None:
    """`launch` works where a loop is running, and `shutdown_async` lets its sagas end."""

    async def main() -> None:
        sagas.launch(config)
        handle = await two_slow_steps.options(saga_id="loop").start_async()
        await sagas.shutdown_async(timeout=10)
        assert handle.saga_id == "loop"

    asyncio.run(main())
    with sagas.launch(config):
        assert SagaHandle[str]("loop").status() is SagaStatus.COMPLETED


@saga
def exits() -> None:
    act("a")
    raise SystemExit(3)


def test_an_exit_in_the_body_is_its_failure(app: sagas.Launched) -> None:
    """SystemExit in a body ends neither this process nor DBOS's loop: the saga is undone."""
    with pytest.raises(SagaFailedError, match="SystemExit"):
        exits.options(saga_id="exits").run()
    assert LEDGER == ["a", "undo a"]


@step
def hold() -> None:
    LEDGER.write("hold")
    assert GATE.wait(15)


@saga
def shortened() -> str:
    act("a")
    if SWITCH.get("short"):
        return "done"
    act("b")
    hold()
    return "done"


@pytest.mark.slow
def test_code_that_no_longer_comes_by_a_step(app: sagas.Launched, relaunch: Any) -> None:
    """A replay that returns before a recorded step completes nothing: it parks."""
    shortened.options(saga_id="short").start()
    until(lambda: "hold" in LEDGER)
    SWITCH["short"] = True
    sagas.shutdown()
    GATE.set()
    relaunch()
    handle = SagaHandle[str]("short")
    with pytest.raises(SagaParkedError, match="step 2 'act' is recorded"):
        handle.result(timeout=20)
    assert "undo a" not in LEDGER


@step(undo=lambda _: LEDGER.write("undo unstorable"))
def unstorable() -> Any:
    return lambda: None


@saga
def returns_what_cannot_be_stored() -> None:
    act("a")
    unstorable()


@pytest.mark.slow
def test_a_step_whose_result_cannot_be_stored_can_be_resolved(app: sagas.Launched) -> None:
    """Undone by hand, it counts as failed, and the saga turns round."""
    handle = returns_what_cannot_be_stored.options(saga_id="lam").start()
    with pytest.raises(SagaParkedError, match="step 2 'unstorable' returned cannot be stored"):
        handle.result(timeout=15)
    assert handle.state().steps[1].status is StepStatus.UNKNOWN
    with SagaClient() as client:
        assert client.resolve("lam", 2, note="undone by hand")
    with pytest.raises(SagaFailedError):
        SagaHandle[None]("lam").result(timeout=15)
    assert LEDGER == ["a", "undo a"]


@step(undo=lambda _: None)
def unsure() -> None:
    raise OutcomeUnknownError("no answer")


@saga
def does_not_know() -> None:
    act("a")
    unsure()


@pytest.mark.slow
def test_a_cancel_stays_one_through_resolve(app: sagas.Launched) -> None:
    """A parked saga that was cancelled ends as cancelled when its step is resolved."""
    handle = does_not_know.options(saga_id="unsure").start()
    with pytest.raises(SagaParkedError):
        handle.result(timeout=15)
    DBOS.update_workflow_attributes(
        "unsure",
        sagas._marks.stop_attributes(sagas._stop.Stop(sagas._stop.Why.CANCEL, "enough")),
        merge=True,
    )
    with SagaClient() as client:
        assert client.resolve("unsure", 2, note="not there")
    with pytest.raises(SagaCancelledError, match="enough"):
        SagaHandle[None]("unsure").result(timeout=15)
    assert LEDGER == ["a", "undo a"]
