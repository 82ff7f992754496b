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
    AuditEntry,
    CompensationFailedError,
    CurrentSaga,
    Failure,
    Launched,
    NotUndone,
    PivotPassedError,
    RequestResult,
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
    Supervision,
    add_compensation,
    current,
    launch,
    pivot,
    pivot_async,
    saga,
    scope,
    shutdown,
    shutdown_async,
    supervise,
)
from steps import (
    NOT_DONE,
    NonRetryableError,
    NotDone,
    OutcomeUnknownError,
    RetriesExhaustedError,
    RetryPolicy,
    Step,
    StepDefinitionError,
    StepError,
    StepFailedError,
    StepTimeoutError,
    idempotency_key,
    receive,
    receive_async,
    sleep,
    sleep_async,
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


assert_type(reserve_by_wider(Order(1)), Reservation)
assert_type(notify(Order(1)), None)


# Limits.


@step(timeout=30)
def limited(order: Order, note: str = "") -> str:
    return ""


@step(timeout=timedelta(seconds=30), name="limited.async", retry=policy)
async def limited_async(order: Order) -> str:
    return ""


@step(timeout=None, undo=by_result, undo_when=None, probe=None)
def unlimited(order: Order) -> Reservation:
    return Reservation("")


@step(undo=by_result, timeout=30, undo_when="completed")
def limited_completed(order: Order, note: str = "") -> Reservation:
    return Reservation("")


@step(undo=by_arguments_async, timeout=30, undo_when="completed", undo_timeout=3)
async def limited_completed_async(order: Order) -> Reservation:
    return Reservation("")


@step(timeout=30, undo_when="attempted")
def limited_undone_below(order: Order) -> Reservation:
    return Reservation("")


@limited_undone_below.undo
def undone_below(result: Reservation | None, order: Order) -> None: ...


assert_type(limited(Order(1), note="x"), str)
assert_type(limited(Order(1)), str)
assert_type(limited_completed(Order(1)), Reservation)
assert_type(limited_undone_below(Order(1)), Reservation)


# Undos of attempted steps.


def attempted(result: Reservation | None) -> None: ...


def attempted_with_arguments(result: Reservation | None, order: Order) -> bool:
    return True


def attempted_anything(result: object, order: Order) -> None: ...


async def attempted_async(result: Reservation | None) -> None: ...


async def attempted_async_with_arguments(result: Reservation | None, order: Order) -> None: ...


@step(undo=attempted, undo_when="attempted", timeout=30)
def try_by_result(order: Order, note: str = "") -> Reservation:
    return Reservation("")


@step(undo=attempted_with_arguments, undo_when="attempted")
def try_by_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(undo=of_anything, undo_when="attempted")
def try_by_wider(order: Order) -> Reservation:
    return Reservation("")


@step(undo=attempted_anything, undo_when="attempted")
def try_by_wider_with_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(undo=attempted, undo_when="attempted")
def try_optional(order: Order) -> Reservation | None:
    return None


@step(undo=of_nothing, undo_when="attempted")
def try_nothing(order: Order) -> None: ...


@step(undo=attempted, undo_when="attempted", timeout=30)
async def try_async_sync_undo(order: Order) -> Reservation:
    return Reservation("")


@step(undo=attempted_with_arguments, undo_when="attempted")
async def try_async_sync_undo_with_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(undo=attempted_async, undo_when="attempted", undo_retry=policy)
async def try_async(order: Order) -> Reservation:
    return Reservation("")


@step(undo=attempted_async_with_arguments, undo_when="attempted")
async def try_async_with_arguments(order: Order) -> Reservation:
    return Reservation("")


assert_type(try_by_result(Order(1), note=""), Reservation)
assert_type(try_by_result(Order(1)), Reservation)
assert_type(try_by_arguments(order=Order(1)), Reservation)
assert_type(try_by_wider(Order(1)), Reservation)
assert_type(try_by_wider_with_arguments(Order(1)), Reservation)
assert_type(try_optional(Order(1)), Reservation | None)
assert_type(try_nothing(Order(1)), None)

# Probes.


def find(order: Order) -> Reservation | NotDone:
    return NOT_DONE


def find_noted(order: Order, note: str = "") -> Reservation | NotDone:
    return NOT_DONE


def find_surely(order: Order) -> Reservation:
    return Reservation("")


def find_nothing(order: Order) -> None | NotDone:
    return NOT_DONE


def find_by_anything(*args: Any, **kwargs: Any) -> Reservation | NotDone:
    return NOT_DONE


async def find_async(order: Order) -> Reservation | NotDone:
    return NOT_DONE


@step(probe=find)
def probed(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_noted, timeout=30, retry=policy, name="probed.noted")
def probed_noted(order: Order, note: str = "") -> Reservation:
    return Reservation("")


@step(probe=find_surely)
def probed_surely(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_nothing)
def probed_nothing(order: Order) -> None: ...


@step(probe=find_by_anything)
def probed_by_anything(order: Order, *, note: str) -> Reservation:
    return Reservation("")


@step(probe=find)
async def probed_async(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_async, timeout=30)
async def probed_on_loop(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find, undo=by_result, timeout=30)
def probed_and_undone(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find, undo=by_arguments, timeout=30)
def probed_and_undone_with_arguments(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find, undo=of_anything)
def probed_and_undone_wider(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_noted, undo=by_two)
def probed_and_undone_with_defaults(order: Order, note: str = "") -> Reservation:
    return Reservation("")


@step(probe=find, undo=by_arguments_async, timeout=30)
async def probed_async_and_undone_async(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find, undo=by_result)
async def probed_async_and_undone(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_async, undo=by_result)
async def probed_on_loop_and_undone(order: Order) -> Reservation:
    return Reservation("")


@step(probe=find_async, undo=by_arguments_async, timeout=30)
async def probed_on_loop_and_undone_async(order: Order) -> Reservation:
    return Reservation("")


@step(timeout=30)
def probed_below(order: Order, note: str = "") -> Reservation | None:
    return Reservation("")


@probed_below.probe
def find_below(order: Order, note: str = "") -> Reservation | NotDone:
    return NOT_DONE


@probed_below.undo
def undo_probed_below(result: Reservation | None, order: Order, note: str = "") -> None: ...


@step
async def probed_below_async(order: Order) -> Reservation:
    return Reservation("")


@probed_below_async.probe
async def find_below_async(order: Order) -> Reservation | NotDone:
    return NOT_DONE


@step
async def probed_below_mixed(order: Order) -> Reservation:
    return Reservation("")


@probed_below_mixed.probe
def find_below_mixed(order: Order) -> Reservation | NotDone:
    return NOT_DONE


assert_type(probed(Order(1)), Reservation)
assert_type(probed_noted(Order(1)), Reservation)
assert_type(probed_noted(Order(1), note=""), Reservation)
assert_type(probed_surely(Order(1)), Reservation)
assert_type(probed_nothing(Order(1)), None)
assert_type(probed_by_anything(Order(1), note=""), Reservation)
assert_type(probed_and_undone(Order(1)), Reservation)
assert_type(probed_and_undone_with_arguments(order=Order(1)), Reservation)
assert_type(probed_and_undone_wider(Order(1)), Reservation)
assert_type(probed_and_undone_with_defaults(Order(1)), Reservation)
assert_type(probed_below(Order(1)), Reservation | None)
assert_type(find(Order(1)), Reservation | NotDone)
assert_type(find_below(Order(1)), Reservation | None | NotDone)
assert_type(NOT_DONE, NotDone)


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

    @step(timeout=30)
    def count(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @count.probe
    def find_count(self, order: Order) -> Reservation | NotDone:
        return NOT_DONE

    @count.undo
    def uncount(self, result: Reservation, order: Order) -> None: ...

    @step(timeout=30)
    async def send(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @send.probe
    async def find_sent(self, order: Order) -> Reservation | NotDone:
        return NOT_DONE

    @send.undo
    async def unsend(self, result: Reservation) -> None: ...

    def find_stored(self, order: Order) -> Reservation | NotDone:
        return NOT_DONE

    @step(timeout=30, probe=find_stored)
    def store(self, order: Order) -> Reservation:
        return Reservation(self.name)

    @staticmethod
    @step
    def static(order: Order) -> Reservation:
        return Reservation("")


inventory = Inventory("north")
assert_type(inventory.reserve(Order(1)), Reservation)
assert_type(inventory.hold(order=Order(1)), Reservation)
assert_type(inventory.count(Order(1)), Reservation)
assert_type(inventory.store(order=Order(1)), Reservation)
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
    assert_type(await inventory.send(Order(1)), Reservation)
    assert_type(await limited_async(Order(1)), str)
    assert_type(await limited_completed_async(Order(1)), Reservation)
    assert_type(await try_async_sync_undo(Order(1)), Reservation)
    assert_type(await try_async_sync_undo_with_arguments(Order(1)), Reservation)
    assert_type(await try_async(Order(1)), Reservation)
    assert_type(await try_async_with_arguments(order=Order(1)), Reservation)
    assert_type(await probed_async(Order(1)), Reservation)
    assert_type(await probed_on_loop(order=Order(1)), Reservation)
    assert_type(await probed_async_and_undone(Order(1)), Reservation)
    assert_type(await probed_async_and_undone_async(Order(1)), Reservation)
    assert_type(await probed_on_loop_and_undone(Order(1)), Reservation)
    assert_type(await probed_on_loop_and_undone_async(Order(1)), Reservation)
    assert_type(await probed_below_mixed(Order(1)), Reservation)
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
    assert_type(await handle.cancel_async("late", by="ann", wait=True), RequestResult)
    with SagaClient() as client:
        assert_type(await client.cancel_async("s", "late", by="ann", wait=True), RequestResult)
        assert_type(await client.terminate_async("s", reason="mess"), RequestResult)
        assert_type(await client.retry_async("s", by="ann", reason="mended"), RequestResult)
        assert_type(await client.resolve_async("s", 3, note="by phone"), RequestResult)
        await client.send_async("s", "topic", {"a": 1}, idempotency_key="k")
        assert_type(await client.list_async(needs_attention=True), list[SagaState])


# Handles.

handle = fulfil.start(Order(1))
assert_type(handle.saga_id, str)
assert_type(handle.result(), str)
assert_type(handle.result(timeout=3), str)
assert_type(handle.status(), SagaStatus)
assert_type(handle.state(), SagaState)
assert_type(handle.cancel(), RequestResult)
assert_type(handle.cancel("late", by="ann", wait=True).status, SagaStatus)
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
    assert_type(state.deadline, datetime | None)
    assert_type(state.stop_requested, str | None)
    assert_type(state.audit, tuple[AuditEntry, ...])
    for entry in state.audit:
        assert_type((entry.verb, entry.time), tuple[str, int])
        assert_type((entry.by, entry.reason), tuple[str | None, str | None])
    assert_type(state.status.is_final, bool)
    for record in state.steps:
        assert_type(record.step_id, int)
        assert_type(record.status, StepStatus)
        assert_type(record.attempts, int)
        assert_type(record.undo_error, Failure | None)
        assert_type(record.note, str | None)


# Clients.

with SagaClient("sqlite:///x.sqlite") as client:
    assert_type(client.get("order-7"), SagaState)
    assert_type(client.history("order-7"), tuple[StepRecord, ...])
    assert_type(client.list(), list[SagaState])
    client.list(status=SagaStatus.PARKED, name=fulfil, limit=10)
    client.list(status=["FAILED", SagaStatus.PARKED], name=["fulfil", fulfil_async])
    client.list(status="PARKED", name="fulfil")
    client.list(since=datetime.now(), needs_attention=False, attributes={"region": "north"})
    assert_type(client.cancel("order-7", "late", by="ann", wait=True), RequestResult)
    assert_type(client.cancel("order-7").accepted, bool)
    assert_type(client.terminate("order-7", reason="mess", by="ann"), RequestResult)
    assert_type(client.retry("order-7", by="ann", reason="mended").message, str)
    assert_type(client.resolve("order-7", 3, note="by phone", by="ann"), RequestResult)
    client.send("order-7", "approval", None)
    client.send("order-7", "approval", {"by": "ann"}, idempotency_key="k")
SagaClient().close()

# Launching.

with launch({"name": "shop"}, executor_id="one") as application:
    assert_type(application, Launched)
    assert_type(application.config, dict[str, Any])
launch()
launch("dbos-config.yaml", name="shop")
launch(Path("dbos-config.yaml"))
launch(as_version="1", supervision=Supervision(interval=0.2, grace=timedelta(seconds=1)))
launch(supervision=Supervision(failover=None, attention_after=3))
with supervise(Supervision(interval=1), config={"name": "shop"}) as supervised:
    assert_type(supervised, Launched)


@saga(timeout=timedelta(hours=1), on_terminate="leave")
def waits(order: int) -> object:
    answer = receive("answer", timeout=3)
    assert_type(answer, Any)
    sleep(timedelta(days=1))
    return receive("another")


@saga(timeout=60)
async def waits_async(order: int) -> object:
    await sleep_async(1.5)
    return await receive_async("answer", timeout=timedelta(minutes=1))


waits.options(timeout=5).start(1)


@saga(retriable=RetryPolicy(max_attempts=None))
def in_blocks(order: int) -> int:
    with scope(name="first try", timeout=timedelta(minutes=1)) as nothing:
        assert_type(nothing, None)
    pivot()
    return order


@saga
async def in_blocks_async(order: int) -> int:
    async with scope():
        await sleep_async(1)
    await pivot_async()
    return order


shutdown()
shutdown(timeout=timedelta(seconds=3))
asyncio.run(shutdown_async(timeout=1))
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
