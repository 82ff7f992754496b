"""Unwinding: what is undone, in which order, and what happens when an undo fails."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import sagas
from sagas import (
    CompensationFailedError,
    SagaFailedError,
    SagaParkedError,
    SagaStatus,
    StepStatus,
    add_compensation,
    current,
    saga,
)
from steps import NonRetryableError, RetryPolicy, StepTimeoutError, idempotency_key, step

from .support import Ledger, names

LEDGER = Ledger()
QUICK = RetryPolicy(max_attempts=3, first_delay=0.01)
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def fresh_ledger() -> None:
    LEDGER.clear()
    BROKEN.clear()


def undo_any(result: str, name: str) -> None:
    if name in BROKEN:
        LEDGER.write(f"failing undo {name}")
        raise NonRetryableError(f"{name} cannot be undone")
    LEDGER.write(f"undo {name} {result} {idempotency_key().rpartition(':')[2]}")


@step(undo=undo_any)
def act(name: str) -> str:
    LEDGER.write(f"do {name}")
    return name.upper()


@step
def fail(message: str = "no") -> None:
    raise ValueError(message)


@saga
def three_then_fail() -> None:
    for name in "abc":
        act(name)
    fail()


@saga(undo_failure="continue")
def three_then_fail_going_on() -> None:
    for name in "abc":
        act(name)
    fail()


def test_each_call_in_a_loop_is_undone_newest_first(shared_app: sagas.Launched) -> None:
    """A step called several times has one undo for each call, with that call's result and key."""
    with pytest.raises(SagaFailedError):
        three_then_fail.options(saga_id="each_call_in_a_loop_").run()
    assert LEDGER[3:] == ["undo c C 3", "undo b B 2", "undo a A 1"]
    undos = ["undo:3:act", "undo:2:act", "undo:1:act"]
    assert names("each_call_in_a_loop_") == ["act", "act", "act", "fail", *undos]


def test_the_state_tells_each_step_and_its_undo(shared_app: sagas.Launched) -> None:
    """State and history carry results, errors and times of steps and undos, read from DBOS."""
    handle = three_then_fail.options(saga_id="the_state_tells_each").start()
    with pytest.raises(SagaFailedError):
        handle.result()
    state = handle.state()
    assert state.status is SagaStatus.FAILED
    assert [s.status for s in state.steps] == [StepStatus.COMPENSATED] * 3 + [StepStatus.FAILED]
    first, last = state.steps[0], state.steps[-1]
    assert first.result == "A"
    assert first.executed_at is not None
    assert first.compensated_at is not None
    assert first.undo_executed_at is not None
    assert state.turned_at is not None
    assert first.executed_at <= state.turned_at <= first.undo_executed_at <= first.compensated_at
    assert last.error is not None
    assert (last.error.error_type, last.error.message) == ("ValueError", "no")
    assert state.failure is not None
    assert state.failure.step_id == 4
    assert "raise ValueError(message)" in state.failure.traceback
    with sagas.SagaClient() as client:
        assert client.get("the_state_tells_each") == state
        assert client.history("the_state_tells_each") == state.steps


def test_an_undo_that_fails_for_good_parks_the_saga(shared_app: sagas.Launched) -> None:
    """By default the older undos are left for later, and all that stands is named."""
    BROKEN.add("b")
    with pytest.raises(CompensationFailedError) as caught:
        three_then_fail.options(saga_id="an_undo_that_fails_f").run()
    error = caught.value
    assert LEDGER[3:] == ["undo c C 3", "failing undo b"]
    assert [(n.step_id, n.name, n.failure is None) for n in error.not_undone] == [
        (2, "act", False),
        (1, "act", True),
    ]
    assert [r.step_id for r in error.undone] == [3]
    assert error.failure is not None
    assert error.failure.message == "no"
    undo_failure = error.not_undone[0].failure
    assert undo_failure is not None
    assert "b cannot be undone" in undo_failure.message
    assert "2:act" in str(error)
    with sagas.SagaClient() as client:
        state = client.get("an_undo_that_fails_f")
        (listed,) = client.list(status=SagaStatus.PARKED)
    assert state.status is SagaStatus.PARKED
    assert state.needs_attention
    assert listed.saga_id == "an_undo_that_fails_f"
    assert state.steps[1].status is StepStatus.COMPENSATION_FAILED
    assert state.steps[1].undo_error is not None
    assert state.steps[0].status is StepStatus.COMPLETED


def test_continue_undoes_the_rest_and_reports_all(shared_app: sagas.Launched) -> None:
    """With undo_failure='continue' every undo is tried, and each that failed is named."""
    BROKEN.update("ca")
    with pytest.raises(CompensationFailedError) as caught:
        three_then_fail_going_on.run()
    assert LEDGER[3:] == ["failing undo c", "undo b B 2", "failing undo a"]
    assert [n.step_id for n in caught.value.not_undone] == [3, 1]
    assert [r.step_id for r in caught.value.undone] == [2]


TRIES: list[float] = []


def undo_third_time(result: None) -> None:
    TRIES.append(time.monotonic())
    if len(TRIES) < 3:
        raise ConnectionError("later")


@step(undo=undo_third_time, undo_retry=RetryPolicy(max_attempts=None, first_delay=0.01))
def flaky_to_undo() -> None:
    return None


@saga
def flaky() -> None:
    flaky_to_undo()
    fail()


def test_an_undo_that_fails_for_a_while_is_tried_again(shared_app: sagas.Launched) -> None:
    """An undo has a retry policy of its own; its attempts are one recorded step."""
    TRIES.clear()
    handle = flaky.start()
    with pytest.raises(SagaFailedError):
        handle.result()
    assert len(TRIES) == 3
    assert names(handle.saga_id) == ["flaky_to_undo", "fail", "undo:1:flaky_to_undo"]
    assert handle.state().steps[0].undo_attempts == 3


SLOW: list[str] = []


def slow_once(result: None) -> None:
    SLOW.append("begun")
    if len(SLOW) == 1:
        time.sleep(0.4)
        SLOW.append("late end")


async def slow_once_async(result: None) -> None:
    SLOW.append("begun")
    if len(SLOW) == 1:
        await asyncio.sleep(30)


@step(undo=slow_once, undo_timeout=0.1, undo_retry=RetryPolicy(max_attempts=2, first_delay=0))
def slow_to_undo() -> None:
    return None


@step(undo=slow_once_async, undo_timeout=0.1, undo_retry=RetryPolicy(max_attempts=2, first_delay=0))
async def slow_to_undo_async() -> None:
    return None


@saga
def slow_saga() -> None:
    slow_to_undo()
    fail()


@step
async def fail_async() -> None:
    raise ValueError("no")


@saga
async def slow_saga_async() -> None:
    await slow_to_undo_async()
    await fail_async()


@pytest.mark.parametrize("which", [slow_saga, slow_saga_async])
def test_an_undo_is_limited_in_each_attempt(shared_app: sagas.Launched, which: Any) -> None:
    """An attempt of an undo that takes too long has failed, and the next one is made."""
    SLOW.clear()
    with pytest.raises(SagaFailedError):
        which.run()
    assert SLOW.count("begun") == 2


def always_slow(result: None) -> None:
    time.sleep(0.4)


@step(undo=always_slow, undo_timeout=0.05, undo_retry=RetryPolicy(max_attempts=1))
def never_undone() -> None:
    return None


@saga
def never_undone_saga() -> None:
    never_undone()
    fail()


def test_an_undo_that_never_ends_in_time_is_named(shared_app: sagas.Launched) -> None:
    """An undo whose last attempt runs out of time parks the saga with that error."""
    with pytest.raises(CompensationFailedError) as caught:
        never_undone_saga.run()
    failure = caught.value.not_undone[0].failure
    assert failure is not None
    assert failure.error_type == f"steps.{StepTimeoutError.__name__}"


def log_by_hand(text: str, items: list[int]) -> None:
    LEDGER.write(f"{text} {items} {idempotency_key().rpartition(':')[2]}")


@saga
def with_compensation_by_hand() -> None:
    act("a")
    items = [1, 2]
    add_compensation(log_by_hand, "by hand", items=items)
    items.append(3)
    act("b")
    fail()


def test_a_compensation_by_hand_has_its_place_in_the_order(shared_app: sagas.Launched) -> None:
    """add_compensation is undone in its place, with its arguments as they were, under a key."""
    with pytest.raises(SagaFailedError):
        with_compensation_by_hand.options(saga_id="a_compensation_by_ha").run()
    assert LEDGER[2:] == ["undo b B 3", "by hand [1, 2] 2", "undo a A 1"]
    assert names("a_compensation_by_ha")[-2] == "undo:2:log_by_hand"


def undo_with(result: dict[str, int], order: list[str]) -> None:
    LEDGER.write(f"undo {result} {order}")


@step(undo=undo_with)
def takes_list(order: list[str]) -> dict[str, int]:
    order.append("by the step")
    return {"n": 1}


@saga
def mutating() -> None:
    order = ["x"]
    result = takes_list(order)
    order.append("later")
    result["n"] = 99
    fail()


def test_an_undo_gets_what_its_step_got(shared_app: sagas.Launched) -> None:
    """What happens to arguments and results after the call does not reach the undo."""
    with pytest.raises(SagaFailedError):
        mutating.run()
    assert LEDGER == ["undo {'n': 1} ['x']"]


@saga
def catches() -> str:
    act("a")
    try:
        fail("first way")
    except ValueError:
        act("b")
    return "second way"


def test_an_exception_that_is_caught_unwinds_nothing(shared_app: sagas.Launched) -> None:
    """A body may catch a step's error and go another way."""
    assert catches.run() == "second way"
    assert LEDGER == ["do a", "do b"]


@saga
def body_fails() -> None:
    act("a")
    raise KeyError("in the body")


def test_an_error_of_the_body_unwinds_too(shared_app: sagas.Launched) -> None:
    """An error that no step raised turns the saga round as well, and names no step."""
    with pytest.raises(SagaFailedError) as caught:
        body_fails.run()
    assert LEDGER[-1] == "undo a A 1"
    assert caught.value.failure is not None
    assert caught.value.failure.step is None
    assert caught.value.failure.error_type == "KeyError"
    assert isinstance(caught.value.__cause__, KeyError)


SEEN: list[tuple[str, str, bool]] = []


def look(*_: Any) -> None:
    here = current()
    SEEN.append((here.saga_id, here.name, here.is_compensating))


@step(undo=look)
def looking() -> None:
    look()


@saga(name="named saga")
def looks() -> None:
    look()
    looking()
    fail()


def test_current_tells_where_one_is(shared_app: sagas.Launched) -> None:
    """current() works in the body, in steps and in undos, and tells that the saga is undone."""
    SEEN.clear()
    with pytest.raises(SagaFailedError):
        looks.options(saga_id="current_tells_where_").run()
    assert SEEN == [
        ("current_tells_where_", "named saga", False),
        ("current_tells_where_", "named saga", False),
        ("current_tells_where_", "named saga", True),
    ]


async def undo_async(result: str) -> None:
    await asyncio.sleep(0)
    LEDGER.write(f"undo {result}")


def undo_blocking(result: str) -> None:
    asyncio.run(asyncio.sleep(0))  # only where no loop is running: on a thread
    LEDGER.write(f"undo {result}")


@step(undo=undo_async)
async def one_async() -> str:
    return "one"


@step(undo=undo_blocking)
async def two_async() -> str:
    return "two"


@saga
async def mixed_async() -> None:
    await one_async()
    await two_async()
    await fail_async()


def test_undos_of_async_steps_may_be_of_either_kind(shared_app: sagas.Launched) -> None:
    """An async undo runs on the loop, a plain one on a thread."""
    with pytest.raises(SagaFailedError):
        mixed_async.run()
    assert LEDGER == ["undo two", "undo one"]


class Inventory:
    """A service whose steps are methods."""

    def __init__(self) -> None:
        self.held = 0

    @step
    def reserve(self, count: int) -> str:
        self.held += count
        return f"r{count}"

    @reserve.undo
    def release(self, result: str, count: int) -> None:
        assert result == f"r{count}"
        self.held -= count

    @step(undo=lambda result: LEDGER.write(f"undo {result}"))
    @staticmethod
    def quote(count: int) -> int:
        return count * 10

    @classmethod
    @step
    def audit(cls, count: int) -> str:
        return f"{cls.__name__}{count}"


STOCK = Inventory()


@saga
def by_methods() -> None:
    STOCK.reserve(5)
    assert STOCK.held == 5
    assert STOCK.quote(2) == 20
    assert Inventory.audit(3) == "Inventory3"
    fail()


def test_steps_may_be_methods(shared_app: sagas.Launched) -> None:
    """Methods, static and class methods are steps; a method's undo runs on its own instance."""
    with pytest.raises(SagaFailedError):
        by_methods.options(saga_id="steps_may_be_methods").run()
    assert STOCK.held == 0
    assert LEDGER == ["undo 20"]
    assert names("steps_may_be_methods")[:3] == [
        "Inventory.reserve",
        "Inventory.quote",
        "Inventory.audit",
    ]


def test_a_parked_saga_raises_the_same_for_every_waiter(shared_app: sagas.Launched) -> None:
    """The outcome that was raised live is the one that is read back, field by field."""
    BROKEN.add("a")
    handle = three_then_fail.options(saga_id="a_parked_saga_raises").start()
    with pytest.raises(CompensationFailedError) as live:
        handle.result()
    with pytest.raises(SagaParkedError) as stored:
        three_then_fail.options(saga_id="a_parked_saga_raises").run()
    assert type(stored.value) is CompensationFailedError
    assert str(stored.value) == str(live.value)
    assert stored.value.not_undone == live.value.not_undone
    assert stored.value.failure == live.value.failure
