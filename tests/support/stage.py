"""
A stage: one saga of four steps, sync or async, that can be held wherever it is.

Each run has a scene of its own, found by its ID. It says where to hold, what to refuse, and what
has taken effect.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from typing import Any

from sagas import SagaHandle, current, saga
from steps import (
    RetryPolicy,
    idempotency_key,
    receive,
    receive_async,
    sleep,
    sleep_async,
    step,
)

PATIENCE = 30.0
LATER = RetryPolicy(max_attempts=None, first_delay=3600.0)


class Scene:
    """
    What happens to one saga.

    Args:
        saga_id: Its ID.
        place: What its body does apart from the four steps: see `_body`.
        hold: Where it is to wait for `open`: in a step (`c`), an undo (`-c`), or the body.
        refuse: Steps and undos that fail, as long as they are in it.
    """

    def __init__(
        self,
        saga_id: str,
        place: str = "",
        hold: tuple[str, ...] = (),
        refuse: tuple[str, ...] = (),
    ) -> None:
        self.saga_id = saga_id
        self.place = place
        self.refuse = set(refuse)
        self.ledger: list[str] = []
        self.calls: list[str] = []
        self.bodies = 0
        self._reached: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._gates = {name: threading.Event() for name in hold}
        SCENES[saga_id] = self

    def open(self, name: str) -> None:
        """Let it go on from where it is held."""
        self._gates[name].set()

    def wait_until_at(self, name: str) -> None:
        """Wait until it has come there, and has been refused, if that is what is to happen."""
        assert self._reached[name].wait(PATIENCE), f"{self.saga_id} has not come to {name}"

    def act(self, name: str) -> None:
        """Take effect."""
        self.calls.append(name)
        if name not in self.refuse:
            self.come_by(name)
        if name in self.refuse:
            self._reached[name].set()
            raise ConnectionError(f"{name} is refused")
        self.ledger.append(name)

    def come_by(self, name: str) -> None:
        """Come to a place; wait there, if that is where to hold."""
        self._reached[name].set()
        gate = self._gates.get(name)
        assert gate is None or gate.wait(PATIENCE), f"{self.saga_id} was held at {name} for ever"

    @property
    def handle(self) -> SagaHandle[str]:
        """A handle that knows the saga by its ID alone."""
        return SagaHandle(self.saga_id)


SCENES: dict[str, Scene] = {}


def here() -> Scene:
    """The scene of the step that is running."""
    return SCENES[idempotency_key().rpartition(":")[0]]


def _sync_step(name: str, kind: str = "stage", **options: Any) -> Any:
    def undo(result: str | None) -> None:
        here().act(f"-{name}")

    @step(name=f"{kind}.{name}", undo=undo, undo_retry=LATER, retry=LATER, **options)
    def act() -> str:
        here().act(name)
        return name

    return act


def _async_step(name: str, kind: str = "stage.async", **options: Any) -> Any:
    async def undo(result: str | None) -> None:
        await asyncio.to_thread(here().act, f"-{name}")

    @step(name=f"{kind}.{name}", undo=undo, undo_retry=LATER, retry=LATER, **options)
    async def act() -> str:
        await asyncio.to_thread(here().act, name)
        return name

    return act


_sync = {name: _sync_step(name) for name in "abcd"}
_async = {name: _async_step(name) for name in "abcd"}
_sync["attempted"] = _sync_step("c", "attempted", undo_when="attempted")
_async["attempted"] = _async_step("c", "attempted.async", undo_when="attempted")


def _body() -> str:
    scene = SCENES[current().saga_id]
    scene.bodies += 1
    _sync["a"]()
    _sync["b"]()
    scene.come_by("body")
    match scene.place:
        case "receive":
            scene.come_by(scene.place)
            receive("topic")
        case "sleep":
            scene.come_by(scene.place)
            sleep(3600)
    _sync["attempted" if scene.place == "attempted" else "c"]()
    _sync["d"]()
    scene.come_by("end")
    if scene.place == "fail":
        raise ValueError("the body fails")
    return "done"


async def _body_async() -> str:
    scene = SCENES[current().saga_id]
    scene.bodies += 1
    await _async["a"]()
    if scene.place == "group":
        await asyncio.gather(_async["b"](), _async["c"]())
    else:
        await _async["b"]()
    await asyncio.to_thread(scene.come_by, "body")
    match scene.place:
        case "receive":
            scene.come_by(scene.place)
            await receive_async("topic")
        case "sleep":
            scene.come_by(scene.place)
            await sleep_async(3600)
    if scene.place != "group":
        await _async["attempted" if scene.place == "attempted" else "c"]()
    await _async["d"]()
    await asyncio.to_thread(scene.come_by, "end")
    if scene.place == "fail":
        raise ValueError("the body fails")
    return "done"


@saga(name="stage-sync")
def sync_saga() -> str:
    return _body()


@saga(name="stage-async")
async def async_saga() -> str:
    return await _body_async()


@saga(name="stage-left", on_terminate="leave")
def left_saga() -> str:
    return _body()


@saga(name="stage-left-async", on_terminate="leave")
async def left_saga_async() -> str:
    return await _body_async()


@saga(name="stage-once", max_recovery_attempts=1)
def once_saga() -> str:
    return _body()


SAGAS: dict[str, Any] = {"sync": sync_saga, "async": async_saga}
LEFT: dict[str, Any] = {"sync": left_saga, "async": left_saga_async}
