"""A process that ends while its sagas wait, or while bodies ignore their limits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, Supervision, _running, _settings, saga
from steps import receive, receive_async, sleep, sleep_async, step

from .support import Ledger, has_left, names, until

LEDGER = Ledger()
KINDS = ("sync", "async")


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()


@step
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step
async def act_async(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def waits(what: str, stubborn: bool) -> str:
    act("a")
    try:
        got = receive("t") if what == "receive" else sleep(0.5)
    except BaseException:
        if not stubborn:
            raise
        LEDGER.write("caught")
        act("never")
        got = None
    act("b")
    return str(got)


@saga
async def waits_async(what: str, stubborn: bool) -> str:
    await act_async("a")
    try:
        got = await (receive_async("t") if what == "receive" else sleep_async(0.5))
    except BaseException:
        if not stubborn:
            raise
        LEDGER.write("caught")
        await act_async("never")
        got = None
    await act_async("b")
    return str(got)


def is_waiting(saga_id: str) -> bool:
    run: Any = _running.of(saga_id)
    return run is not None and run.waiting is not None and "DBOS.sleep" in names(saga_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("what", ["receive", "sleep"])
@pytest.mark.slow
def test_a_shutdown_ends_a_wait_and_the_next_launch_goes_on(
    app: sagas.Launched, relaunch: Any, kind: str, what: str, stubborn: bool
) -> None:
    """shutdown() returns promptly; a body that catches its end does no more, and goes on later."""
    (waits if kind == "sync" else waits_async).options(saga_id="w").start(what, stubborn)
    until(lambda: is_waiting("w"))
    began = time.monotonic()
    sagas.shutdown()
    assert time.monotonic() - began < 4
    until(lambda: has_left("w"))
    assert ["a", *(["caught"] if stubborn else [])] == LEDGER
    relaunch()
    handle = SagaHandle[str]("w")
    if what == "receive":
        until(lambda: is_waiting("w"))
        with SagaClient() as client:
            client.send("w", "t", "hello")
    assert handle.result(timeout=20) == ("hello" if what == "receive" else "None")
    assert LEDGER[-1] == "b"
    assert "never" not in LEDGER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_message_that_came_while_nothing_ran(
    app: sagas.Launched, relaunch: Any, kind: str
) -> None:
    """What is sent while no process runs the saga is received by the next one, once."""
    (waits if kind == "sync" else waits_async).options(saga_id="w").start("receive", False)
    until(lambda: is_waiting("w"))
    url = app.config["system_database_url"]
    sagas.shutdown()
    with SagaClient(url) as client:
        client.send("w", "t", "hello")
        client.send("w", "t", "again")
    relaunch()
    assert SagaHandle[str]("w").result(timeout=20) == "hello"
    assert LEDGER == ["a", "b"]
    assert names("w").count("DBOS.recv") == 1


GO = threading.Event()


@step(timeout=0.05)
def stubborn_step() -> None:
    assert GO.wait(20)
    LEDGER.write("late")


@step(timeout=0.05)
async def stubborn_step_async() -> None:
    while not GO.is_set():
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            LEDGER.write("told to end")
    LEDGER.write("late")


@saga
def leaves_behind() -> None:
    stubborn_step()


@saga
async def leaves_behind_async() -> None:
    await stubborn_step_async()


@pytest.mark.parametrize("kind", KINDS)
def test_launch_sets_the_grace(config: dict[str, Any], kind: str) -> None:
    """Bodies that ignore their limit are waited for as long as `launch` was told to."""
    GO.clear()
    with sagas.launch(config, supervision=Supervision(grace=0.2)):
        began = time.monotonic()
        with pytest.raises(sagas.SagaFailedError):
            (leaves_behind if kind == "sync" else leaves_behind_async).run()
        assert 0.2 <= time.monotonic() - began < 4
        assert "late" not in LEDGER
        GO.set()
        until(lambda: "late" in LEDGER)
    sagas.shutdown()
    with sagas.launch(config):
        assert _settings.grace() == 5.0


@pytest.mark.slow
def test_a_deadline_of_a_saga_that_waits_while_nothing_runs(
    app: sagas.Launched, relaunch: Any
) -> None:
    """A wait that is taken up past the deadline ends at once."""
    waits.options(saga_id="w", timeout=0.4).start("receive", False)
    until(lambda: is_waiting("w"))
    run: Any = _running.of("w")
    sagas.shutdown()
    until(lambda: time.time() > run.deadline)
    relaunch()
    with pytest.raises(sagas.SagaTimeoutError):
        SagaHandle[str]("w").result(timeout=20)
    assert LEDGER == ["a"]
    assert SagaHandle[str]("w").status() is SagaStatus.FAILED
