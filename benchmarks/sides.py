"""The two sides of a comparison: how each starts its workflow and waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from dbos import DBOS

from sagas import SagaFailedError

from . import by_hand, orders

QUEUE = "bench"

SideName = Literal["saga", "by-hand"]
SIDES: tuple[SideName, SideName] = ("saga", "by-hand")


@dataclass(frozen=True, slots=True)
class Side:
    """One way to write the four steps."""

    workflow: str
    """What DBOS knows the sync one by."""
    workflow_async: str
    failure: type[Exception]
    """What an order below zero ends with."""
    start: Callable[[int], Any]
    wait: Callable[[Any], str]
    start_async: Callable[[int], Awaitable[Any]]
    wait_async: Callable[[Any], Awaitable[str]]
    enqueue: Callable[[int], Any]
    enqueue_async: Callable[[int], Awaitable[Any]]


def _saga() -> Side:
    queued = orders.fulfil.options(queue=QUEUE)
    queued_async = orders.fulfil_async.options(queue=QUEUE)
    return Side(
        workflow=orders.fulfil.name,
        workflow_async=orders.fulfil_async.name,
        failure=SagaFailedError,
        start=orders.fulfil.start,
        wait=lambda handle: str(handle.result()),
        start_async=orders.fulfil_async.start_async,
        wait_async=lambda handle: handle.result_async(),
        enqueue=queued.start,
        enqueue_async=queued_async.start_async,
    )


def _by_hand() -> Side:
    return Side(
        workflow="by_hand.fulfil",
        workflow_async="by_hand.fulfil_async",
        failure=orders.Refused,
        start=lambda order: DBOS.start_workflow(by_hand.fulfil, order),
        wait=lambda handle: str(handle.get_result()),
        start_async=lambda order: DBOS.start_workflow_async(by_hand.fulfil_async, order),
        wait_async=lambda handle: handle.get_result(),
        enqueue=lambda order: DBOS.enqueue_workflow(QUEUE, by_hand.fulfil, order),
        enqueue_async=lambda order: DBOS.enqueue_workflow_async(QUEUE, by_hand.fulfil_async, order),
    )


_sides: dict[SideName, Side] = {"saga": _saga(), "by-hand": _by_hand()}


def side(name: SideName) -> Side:
    """One side."""
    return _sides[name]
