"""
DBOS, as steps use it. The only file of this package that imports it.

A claim about DBOS that this file relies on has a test in `tests/integration/test_dbos.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

from dbos import DBOS

from ._mode import drive


class PickleCodec:
    """How DBOS stores values by default (it then makes text of the bytes)."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


PICKLE = PickleCodec()


def workflow_here() -> str | None:
    """The ID of the workflow that is running here, in its body or in a step."""
    workflow_id: str | None = DBOS.workflow_id
    return workflow_id


def in_step() -> bool:
    """Whether a step of it is running here."""
    return DBOS.step_id is not None


def reserve() -> Any:
    """Draw the next step ID of the workflow that is running here."""
    return DBOS.reserve_step()


def run(reservation: Any, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
    """
    Run `body` as the reserved step, or return its recorded outcome.

    `body` must be one that never suspends.
    """

    def blocking() -> Any:
        return drive(body())  # type: ignore[arg-type]

    return reservation.run({"name": name}, blocking)


async def run_async(reservation: Any, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
    """Run `body` as the reserved step on the event loop, or return its recorded outcome."""

    async def on_loop() -> Any:
        return await body()

    return await reservation.run_async({"name": name}, on_loop)


def receive(topic: str, seconds: float) -> Any:
    """The next message on a topic, in a plain workflow; None if none comes in time."""
    return DBOS.recv(topic, seconds)


async def receive_async(topic: str, seconds: float) -> Any:
    """`receive`, on the event loop."""
    return await DBOS.recv_async(topic, seconds)


def sleep(seconds: float) -> None:
    """Wait durably, in a plain workflow."""
    DBOS.sleep(seconds)


async def sleep_async(seconds: float) -> None:
    """`sleep`, on the event loop."""
    await DBOS.sleep_async(seconds)
