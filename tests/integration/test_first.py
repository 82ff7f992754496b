"""The main road: start, complete, fail, unwind."""

from __future__ import annotations

import pytest

import sagas
from sagas import SagaFailedError, SagaStatus, saga
from steps import idempotency_key, step

LOG: list[tuple[object, ...]] = []


def release(result: str, order: int) -> None:
    LOG.append(("release", result, order, idempotency_key()))


@step(undo=release)
def reserve(order: int) -> str:
    LOG.append(("reserve", order, idempotency_key()))
    return f"r{order}"


@step
def ship(order: int) -> str:
    if order == 13:
        raise ValueError("no carrier")
    return "shipped"


@saga
def fulfil(order: int) -> str:
    reserve(order)
    return ship(order)


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def test_a_saga_returns_its_result(app: sagas.Launched) -> None:
    """A saga whose steps succeed is COMPLETED and returns what its function returns."""
    handle = fulfil.options(saga_id="a").start(1)
    assert handle.result() == "shipped"
    assert handle.status() is SagaStatus.COMPLETED
    assert LOG == [("reserve", 1, "a:1")]


def test_a_failure_undoes_the_completed_steps(app: sagas.Launched) -> None:
    """A failed step undoes the completed ones with their results, arguments and keys."""
    with pytest.raises(SagaFailedError, match="no carrier") as caught:
        fulfil.options(saga_id="b").run(13)
    assert LOG == [("reserve", 13, "b:1"), ("release", "r13", 13, "b:1")]
    assert caught.value.failure is not None
    assert caught.value.failure.step == "ship"
    assert [r.name for r in caught.value.undone] == ["reserve"]
