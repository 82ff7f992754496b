"""
The group rule: what makes concurrent steps of an async saga replay alike.

Steps that are in flight together form a group. What became of them is handed to the body only
when all have ended, by step ID. So the body goes on in the same order however fast each was,
live and from checkpoints, and every outcome is known before anything is undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

HOPS = 12
"""
Turns of the event loop that a settled group of a concurrent saga waits for more members.

A branch may need a few before it comes to its next step. A replayed step ends within as many, a
live one does not; without this leeway they could fall into different groups.
"""


@dataclass(slots=True, eq=False)
class _Member:
    step_id: int
    work: asyncio.Task[Any]
    outcome: asyncio.Future[Any]


class Group:
    """The steps of one async saga that are in flight."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._unsettled = 0
        self._home = asyncio.current_task()
        self._concurrent = False

    async def join(self, step_id: int, work: Coroutine[Any, Any, Any]) -> Any:
        """
        Run `work` to its end and return what it returned, when the group has settled.

        Cancellation:
            `work` goes on to its end; only its outcome is handed to nobody.
        """
        loop = asyncio.get_running_loop()
        member = _Member(step_id, loop.create_task(work), loop.create_future())
        self._members.append(member)
        self._unsettled += 1
        if len(self._members) > 1 or asyncio.current_task() is not self._home:
            self._concurrent = True
        member.work.add_done_callback(self._settled)
        return await member.outcome

    def _settled(self, work: asyncio.Task[Any]) -> None:
        self._unsettled -= 1
        if self._unsettled == 0:
            self._deliver(HOPS if self._concurrent else 1)

    def _deliver(self, hops: int) -> None:
        if self._unsettled:
            return  # another joined; its end will bring us back
        if hops:
            asyncio.get_running_loop().call_soon(self._deliver, hops - 1)
            return
        members, self._members = self._members, []
        for member in sorted(members, key=lambda m: m.step_id):
            _hand_over(member)

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
