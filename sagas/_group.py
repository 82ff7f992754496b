"""
The group rule: what makes concurrent steps of an async saga replay alike.

Steps that are in flight together form a group. What became of them is handed to the body only
when all have ended, by step ID. So the body goes on in the same order however fast each was,
live and from checkpoints, and every outcome is known before anything is undone.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar

from ._scope import Scope, is_within

MOST_HOPS = 1000
"""Turns of the event loop after which it counts as idle, however busy it is."""

BLIND_HOPS = 200
"""Likewise, on an event loop of which one cannot see whether it is idle."""


class _Idle:
    """
    Calls back when an event loop has nothing left to run at once.

    A branch may need many turns of the loop before it comes to its next step: each nested `gather`
    costs a few. Live, a step takes long enough for that; a replayed one is there at once. Until the
    loop is idle, the branches have not come as far as they can.
    """

    _of: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ready: Any = getattr(loop, "_ready", None)  # of asyncio's own loops
        self._waiting: list[Callable[[], None]] = []

    @classmethod
    def call(cls, callback: Callable[[], None]) -> None:
        """Have `callback` called once the running loop is idle."""
        loop = asyncio.get_running_loop()
        idle = cls._of.get(loop)
        if idle is None:
            idle = cls._of[loop] = cls(loop)
        idle._waiting.append(callback)
        if len(idle._waiting) == 1:  # one look for all, lest they keep each other busy
            loop.call_soon(idle._look, 0)

    def _look(self, hops: int) -> None:
        idle = hops >= BLIND_HOPS if self._ready is None else not self._ready or hops >= MOST_HOPS
        if not idle:
            asyncio.get_running_loop().call_soon(self._look, hops + 1)
            return
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


@dataclass(slots=True, eq=False)
class _Member:
    step_id: int
    work: asyncio.Task[Any]
    outcome: asyncio.Future[Any]
    scope: Scope | None = None


class Group:
    """The steps of one async saga that are in flight."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._unsettled = 0
        self._home = asyncio.current_task()
        self._concurrent = False

    @property
    def in_branch(self) -> bool:
        """Whether this runs in a task that the body has started, not in the body itself."""
        return asyncio.current_task() is not self._home

    @property
    def is_busy(self) -> bool:
        """Whether steps are in flight, or this runs in a branch."""
        return bool(self._members) or self.in_branch

    async def join(
        self, step_id: int, work: Coroutine[Any, Any, Any], scope: Scope | None = None
    ) -> Any:
        """
        Run `work` to its end and return what it returned, when the group has settled.

        Cancellation:
            `work` goes on to its end; only its outcome is handed to nobody.
        """
        loop = asyncio.get_running_loop()
        member = _Member(step_id, loop.create_task(work), loop.create_future(), scope)
        self._members.append(member)
        self._unsettled += 1
        if len(self._members) > 1 or self.in_branch:
            self._concurrent = True
        member.work.add_done_callback(self._settled)
        return await member.outcome

    def _settled(self, work: asyncio.Task[Any]) -> None:
        self._unsettled -= 1
        if self._unsettled:
            return
        if self._concurrent:
            _Idle.call(self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        if self._unsettled:
            return  # another joined; its end will bring us back
        members, self._members = self._members, []
        for member in sorted(members, key=lambda m: m.step_id):
            _hand_over(member)

    async def settle_within(self, scope: Scope) -> None:
        """Wait until every step in flight of a scope has ended, and its outcome is handed over."""
        while waited := [m.outcome for m in self._members if is_within(m.scope, scope)]:
            await asyncio.wait(waited)

    async def settle(self) -> list[BaseException]:
        """
        Wait until every step in flight has ended.

        Returns:
            The errors that somebody still waits for, by step ID.
        """
        awaited: dict[int, _Member] = {}
        while self._members:
            awaited |= {m.step_id: m for m in self._members if not m.outcome.done()}
            await asyncio.wait({m.outcome if m.work.done() else m.work for m in self._members})
        errors = []
        for _, member in sorted(awaited.items()):
            if not member.work.cancelled() and (error := member.work.exception()) is not None:
                errors.append(error)
        return errors


def _hand_over(member: _Member) -> None:
    if member.work.cancelled():
        member.outcome.cancel()
        return
    error = member.work.exception()
    if member.outcome.done():
        return  # its awaiter was cancelled
    if error is None:
        member.outcome.set_result(member.work.result())
    else:
        member.outcome.set_exception(error)
        member.outcome.exception()  # whoever awaits it raises it; if nobody does, `settle` tells
