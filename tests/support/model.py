"""
What a program must come to, by the promises alone: no DBOS, no engine.

Sequential steps draw their IDs in the order of calls. Concurrent ones form a group: outcomes are
handed over when nothing of the program can go on without them, by step ID. So the model runs a
program on an event loop of its own and hands over whenever that loop has nothing left to do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from .programs import Boom, Call, Program, Push, run

STILL = 200
"""Turns of the loop without another call, after which nothing more can come."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is to be seen when a saga has ended."""

    status: str
    rows: tuple[tuple[int, str, bool], ...]
    """The history: step ID, name, whether it failed."""
    undone: tuple[int, ...]
    """Which steps are undone, in this order."""
    standing: frozenset[int]
    """The steps whose effects stand."""
    failed_step: int | None
    """The step that is to blame."""
    loose: bool
    """
    Whether branches were still running when the body ended.

    How far they get is left open; all else must hold, and be the same in every run.
    """


def step_name(call: Call) -> str:
    """What a call is recorded under."""
    return f"prog.{call.name}" if call.undo else f"prog.{call.name}.final"


def push_name(push: Push) -> str:
    """What a pushed compensation is recorded under."""
    return f"pushed_{push.name}"


@dataclass(slots=True)
class _Model:
    on_loop: bool
    next_id: int = 1
    rows: dict[int, tuple[str, bool]] = field(default_factory=dict)
    stack: dict[int, tuple[str, bool]] = field(default_factory=dict)
    """By step ID: the name, and whether its undo fails for good."""
    waiting: dict[int, tuple[asyncio.Future[None], Call]] = field(default_factory=dict)
    joined: int = 0
    errors: list[tuple[BaseException, int]] = field(default_factory=list)
    pushed: set[int] = field(default_factory=set)

    def draw(self) -> int:
        step_id = self.next_id
        self.next_id += 1
        return step_id

    def between(self) -> None:
        pass

    def push(self, node: Push) -> None:
        step_id = self.draw()
        self.pushed.add(step_id)
        self.stack[step_id] = (push_name(node), False)

    def call(self, node: Call) -> Any:
        step_id = self.draw()
        if self.on_loop:
            return self._call_on_loop(step_id, node)
        self._perform(step_id, node)
        if node.fails:
            raise self._error(step_id)
        return None

    def _perform(self, step_id: int, node: Call) -> None:
        self.rows[step_id] = (step_name(node), node.fails)
        if node.undo and not node.fails:
            self.stack[step_id] = (step_name(node), node.undo_fails)

    def _error(self, step_id: int) -> Boom:
        error = Boom(step_id)
        self.errors.append((error, step_id))
        return error

    async def _call_on_loop(self, step_id: int, node: Call) -> None:
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._perform(step_id, node)
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self._watch, STILL, self.joined)
        self.waiting[step_id] = (outcome, node)
        self.joined += 1
        await outcome

    def _watch(self, left: int, joined: int) -> None:
        loop = asyncio.get_running_loop()
        if joined != self.joined:
            loop.call_soon(self._watch, STILL, self.joined)
        elif left:
            loop.call_soon(self._watch, left - 1, joined)
        else:
            self.hand_over()

    def hand_over(self) -> None:
        group, self.waiting = self.waiting, {}
        for step_id, (outcome, node) in sorted(group.items()):
            if outcome.done():
                continue  # its branch was cancelled
            if node.fails:
                outcome.set_exception(self._error(step_id))
                outcome.exception()
            else:
                outcome.set_result(None)


async def _run_on_loop(program: Program, model: _Model) -> tuple[BaseException | None, bool]:
    raised: BaseException | None = None
    try:
        await run(program.block, model)
    except Exception as error:
        raised = error
    left = asyncio.all_tasks() - {asyncio.current_task()}
    loose = bool(left or model.waiting)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return raised, loose


def _run_blocking(program: Program, model: _Model) -> tuple[BaseException | None, bool]:
    try:
        run(program.block, model).send(None)
    except StopIteration:
        return None, False
    except Exception as error:
        return error, False
    raise AssertionError("a sequential program suspended")


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def predict(program: Program, *, on_loop: bool) -> Prediction:
    """What the saga of this program must come to."""
    model = _Model(on_loop)
    if on_loop:
        raised, loose = asyncio.run(_run_on_loop(program, model))
    else:
        raised, loose = _run_blocking(program, model)
    rows = [(i, name, failed) for i, (name, failed) in model.rows.items()]
    done = {i for i, (_, failed) in model.rows.items() if not failed}
    if raised is None:
        return Prediction(
            "COMPLETED", tuple(sorted(rows)), (), frozenset(done), failed_step=None, loose=loose
        )
    undone: list[int] = []
    failing = False
    next_id = model.draw() + 1  # the turn itself takes one
    for step_id, (name, undo_fails) in sorted(model.stack.items(), reverse=True):
        if failing and program.undo_failure == "halt":
            break
        rows.append((next_id, f"undo:{step_id}:{name}", undo_fails))
        next_id += 1
        failing = failing or undo_fails
        if not undo_fails:
            undone.append(step_id)
    blamed = [i for leaf in leaves(raised) for error, i in model.errors if error is leaf]
    return Prediction(
        "PARKED" if failing else "FAILED",
        tuple(sorted(rows)),
        tuple(undone),
        frozenset(done - set(undone)),
        failed_step=min(blamed, default=None),
        loose=loose,
    )
