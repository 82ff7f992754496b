"""Right uses of everything public, for type checkers. Never run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

from dbos import DBOS, SetWorkflowID

import sagas
from sagas import (
    CompensationFailedError,
    CurrentSaga,
    Failure,
    Launched,
    NotUndone,
    PivotPassedError,
    Saga,
    SagaCancelledError,
    SagaClient,
    SagaConflictError,
    SagaDefinitionError,
    SagaError,
    SagaFailedError,
    SagaHandle,
    SagaNotFoundError,
    SagaOutcomeError,
    SagaParkedError,
    SagaState,
    SagaStatus,
    SagaTerminatedError,
    SagaTimeoutError,
    SagaUsageError,
    Starter,
    StepRecord,
    StepRef,
    StepStatus,
    add_compensation,
    current,
    launch,
    saga,
    shutdown,
)
from steps import (
    NonRetryableError,
    OutcomeUnknownError,
    RetriesExhaustedError,
    RetryPolicy,
    Step,
    StepDefinitionError,
    StepError,
    StepFailedError,
    StepTimeoutError,
    idempotency_key,
    step,
)


@dataclass
class Order:
    number: int


@dataclass
class Reservation:
    key: str


# Policies.

policy = RetryPolicy(
    max_attempts=3,
    first_delay=timedelta(seconds=1),
    backoff=2,
    max_delay=60,
    retry_on=(OSError, TimeoutError),
    give_up_on=FileNotFoundError,
    jitter=0.1,
)
for_ever = RetryPolicy(max_attempts=None)

# Steps without an undo.


@step
def plain(order: Order, note: str = "") -> str:
    return idempotency_key()


@step()
def plain_called(order: Order) -> str:
    return ""


@step(name="named", retry=policy)
def plain_named(order: Order) -> str:
    return ""


@step(undo=None)
def plain_without(order: Order) -> str:
    return ""


@step
async def coroutine(order: Order) -> int:
    return 1


@step(name="coroutine.named", retry=policy)
async def coroutine_named(order: Order) -> int:
    return 1


assert_type(plain(Order(1), note="x"), str)
assert_type(plain_called(Order(1)), str)
assert_type(plain_named(order=Order(1)), str)
assert_type(plain_without(Order(1)), str)
assert_type(plain.name, str)
assert_type(coroutine_named.is_async, bool)
covariant: Step[[Order], object] = plain_called


# Undos.


def by_result(result: Reservation) -> None: ...


def by_result_with_return(result: Reservation) -> bool:
    return True


def by_arguments(result: Reservation, order: Order) -> None: ...


def by_two(result: Reservation, order: Order, note: str) -> None: ...


def of_anything(result: object) -> None: ...


async def by_result_async(result: Reservation) -> None: ...


async def by_arguments_async(result: Reservation, order: Order) -> None: ...


def of_nothing(result: None) -> None: ...


@step(undo=by_result)
def reserve_by_result(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_result_with_return)
def reserve_ignored_return(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_arguments)
def reserve_by_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_two)
def reserve_by_two(order: Order, note: str) -> Reservation:
    return Reservation("")


@step(undo=of_anything)
def reserve_by_wider(order: Order) -> Reservation:
    return Reservation("")


@step(undo=of_nothing)
def notify(order: Order) -> None: ...


@step(undo=by_result, retry=policy, undo_retry=for_ever, undo_timeout=timedelta(minutes=1))
async def reserve_async_sync_undo(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_arguments)
async def reserve_async_sync_undo_with_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_result_async, undo_timeout=30)
async def reserve_async(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_arguments_async)
async def reserve_async_with_arguments(order: Order) -> Reservation:
    return Reservation("")


assert_type(reserve_by_result(Order(1)), Reservation)
assert_type(reserve_by_arguments(order=Order(1)), Reservation)
assert_type(reserve_by_two(Order(1), "x"), Reservation)


@step
def pack(order: Order) -> Reservation:
    return Reservation("")


@pack.undo
def unpack(result: Reservation, order: Order) -> None: ...


assert_type(unpack(Reservation(""), Order(1)), object)


@step
async def wrap(order: Order) -> Reservation:
    return Reservation("")


@wrap.undo
async def unwrap(result: Reservation) -> None: ...


class Inventory:
    def __init__(self, name: str) -> None:
        self.name = name

    @step
    def reserve(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @reserve.undo
    def release(self, result: Reservation, order: Order) -> None: ...

    @step(name="hold", retry=policy)
    def hold(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @hold.undo
    def let_go(self, result: Reservation) -> None: ...

    @step
    async def ship(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @ship.undo
    async def call_back(self, result: Reservation, order: Order) -> None: ...

    @step
    async def announce(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @announce.undo
    def withdraw(self, result: Reservation, order: Order) -> None: ...

    @staticmethod
    @step
    def static(order: Order) -> Reservation:
        return Reservation("")


inventory = Inventory("north")
assert_type(inventory.reserve(Order(1)), Reservation)
assert_type(inventory.hold(order=Order(1)), Reservation)
assert_type(Inventory.static(Order(1)), Reservation)
assert_type(Inventory.reserve.name, str)

# Sagas.


@saga
def fulfil(order: Order, express: bool = False) -> str:
    reservation = reserve_by_arguments(order)
    inventory.reserve(order)
    add_compensation(by_arguments, reservation, order)
    here = current()
    assert_type(here, CurrentSaga)
    assert_type(here.saga_id, str)
    assert_type(here.is_compensating, bool)
    return plain(order)


@saga(name="fulfil.async", undo_failure="continue", max_recovery_attempts=None)
async def fulfil_async(order: Order) -> int:
    first, second = await asyncio.gather(coroutine(order), coroutine_named(order))
    assert_type(second, int)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reserve_async(order))
    assert_type(task.result(), Reservation)
    add_compensation(by_result_async, task.result())
    return first


@saga(undo_failure="halt", max_recovery_attempts=5)
def nothing() -> None: ...


the_saga: Saga[..., object] = fulfil
assert_type(fulfil(Order(1), express=True), str)
assert_type(fulfil(Order(1)), str)
assert_type(fulfil.run(Order(1)), str)
assert_type(fulfil.start(Order(1), True), SagaHandle[str])
assert_type(fulfil_async.start(Order(1)), SagaHandle[int])
assert_type(fulfil_async.run(order=Order(1)), int)
assert_type(nothing.start(), SagaHandle[None])
assert_type(fulfil.name, str)
assert_type(fulfil_async.is_async, bool)

starter = fulfil.options(
    saga_id="order-7",
    queue="orders",
    priority=1,
    delay=timedelta(seconds=3),
    deduplication_id="d",
    attributes={"region": "north", "n": 1},
)
starter_async = fulfil_async.options(saga_id="order-8", delay=0.5)
holder: Starter[..., object] = starter
assert_type(starter.start(Order(1)), SagaHandle[str])
assert_type(starter.run(Order(1)), str)
assert_type(starter_async.start(Order(1)), SagaHandle[int])
assert_type(starter_async.run(Order(1)), int)


async def on_a_loop() -> None:
    assert_type(await coroutine(Order(1)), int)
    assert_type(await reserve_async_sync_undo(Order(1)), Reservation)
    assert_type(await reserve_async_with_arguments(Order(1)), Reservation)
    assert_type(await inventory.ship(Order(1)), Reservation)
    assert_type(await fulfil_async(Order(1)), int)
    assert_type(await fulfil.run_async(Order(1)), str)
    assert_type(await fulfil_async.run_async(Order(1)), int)
    assert_type(await fulfil.start_async(Order(1)), SagaHandle[str])
    assert_type(await starter.run_async(Order(1)), str)
    assert_type(await starter.start_async(Order(1)), SagaHandle[str])
    assert_type(await starter_async.start_async(Order(1)), SagaHandle[int])
    assert_type(await starter_async.run_async(Order(1)), int)
    handle = await fulfil_async.start_async(Order(1))
    assert_type(await handle.result_async(timeout=timedelta(seconds=3)), int)
    assert_type(await handle.status_async(), SagaStatus)
    assert_type(await handle.state_async(), SagaState)


# Handles.

handle = fulfil.start(Order(1))
assert_type(handle.saga_id, str)
assert_type(handle.result(), str)
assert_type(handle.result(timeout=3), str)
assert_type(handle.status(), SagaStatus)
assert_type(handle.state(), SagaState)
wider: SagaHandle[object] = handle
assert_type(SagaHandle[str]("order-7").result(), str)


def states(state: SagaState) -> None:
    assert_type(state.status, SagaStatus)
    assert_type(state.steps, tuple[StepRecord, ...])
    assert_type(state.error, SagaOutcomeError | None)
    assert_type(state.failure, Failure | None)
    assert_type(state.reason, str | None)
    assert_type(state.created_at, datetime | None)
    assert_type(state.attributes, Mapping[str, Any])
    assert_type(state.needs_attention, bool)
    assert_type(state.status.is_final, bool)
    for record in state.steps:
        assert_type(record.step_id, int)
        assert_type(record.status, StepStatus)
        assert_type(record.attempts, int)
        assert_type(record.undo_error, Failure | None)


# Clients.

with SagaClient("sqlite:///x.sqlite") as client:
    assert_type(client.get("order-7"), SagaState)
    assert_type(client.history("order-7"), tuple[StepRecord, ...])
    assert_type(client.list(), list[SagaState])
    client.list(status=SagaStatus.PARKED, name=fulfil, limit=10)
    client.list(status=["FAILED", SagaStatus.PARKED], name=["fulfil", fulfil_async])
    client.list(status="PARKED", name="fulfil")
SagaClient().close()

# Launching.

with launch({"name": "shop"}, executor_id="one") as application:
    assert_type(application, Launched)
    assert_type(application.config, dict[str, Any])
launch()
launch("dbos-config.yaml", name="shop")
launch(Path("dbos-config.yaml"))
shutdown()
shutdown(timeout=timedelta(seconds=3))
reached_by_the_package: str = sagas.SagaStatus.FAILED.value

# With DBOS itself.


@DBOS.workflow()
def workflow(order: Order) -> str:
    return plain(order)


with SetWorkflowID("order-9"):
    assert_type(fulfil(Order(1)), str)

started = DBOS.start_workflow(fulfil, Order(1))

# Errors.


def outcomes(run: Callable[[], object]) -> None:
    try:
        run()
    except CompensationFailedError as error:
        assert_type(error.not_undone, tuple[NotUndone, ...])
        assert_type(error.not_undone[0].failure, Failure | None)
        assert_type(error.reason, str)
    except SagaParkedError as error:
        assert_type(error.reason, str)
    except SagaCancelledError as error:
        assert_type(error.reason, str)
    except (SagaTimeoutError, SagaFailedError, SagaTerminatedError) as error:
        assert_type(error.saga_id, str)
        assert_type(error.undone, tuple[StepRef, ...])
    except SagaOutcomeError as error:
        if error.failure is not None:
            assert_type(error.failure.step, str | None)
            assert_type(error.failure.error_type, str)
    except (
        SagaNotFoundError,
        SagaConflictError,
        PivotPassedError,
        SagaUsageError,
        SagaDefinitionError,
    ):
        raise
    except SagaError:
        raise
    except RetriesExhaustedError as error:
        assert_type(error.errors, tuple[Exception, ...])
    except StepFailedError as error:
        assert_type(error.error_type, str)
    except StepTimeoutError as error:
        assert_type(error.timeout, float)
    except (NonRetryableError, OutcomeUnknownError, StepDefinitionError, StepError):
        raise NonRetryableError("enough") from None
