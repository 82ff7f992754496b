"""
Random sagas: small programs of steps, and one interpreter that runs them.

The interpreter knows neither DBOS nor sagas: it calls steps and pushes compensations in a
`World`. One world is the library (`tests.support.actors`), another the model that predicts it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from hypothesis import strategies as st

NAMES = 6
"""How many differently named steps there are, with and without an undo each."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call a step."""

    name: int
    undo: bool = True
    fails: bool = False
    """It raises, and that is recorded."""
    flaky: int = 0
    """So many of its attempts fail before one succeeds."""
    undo_flaky: int = 0
    """So many attempts of its undo fail before one succeeds."""
    undo_fails: bool = False
    """Its undo fails for good."""


@dataclass(frozen=True, slots=True)
class Push:
    """Push a compensation by hand."""

    name: int
    undo_flaky: int = 0


@dataclass(frozen=True, slots=True)
class Raise:
    """The body raises an error of its own."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Run a block; if it fails, catch that and run another."""

    block: Block
    otherwise: Block


@dataclass(frozen=True, slots=True)
class Loop:
    """Run a block several times."""

    times: int
    block: Block


Kind: TypeAlias = Literal[
    "gather", "gather_all", "task_group", "as_completed", "limited", "race", "deferred"
]


@dataclass(frozen=True, slots=True)
class Parallel:
    """
    Run several blocks concurrently.

    `gather_all`: with `return_exceptions`, the first error is raised afterwards. `as_completed`:
    the outcome of each decides whether another step follows at once. `limited`: at most two at a
    time. `race`: the first to end wins, the others are cancelled. `deferred`: the steps are
    called in order and awaited backwards (of each branch its first node, where that is a `Call`).
    """

    kind: Kind
    branches: tuple[Block, ...]


Node: TypeAlias = Call | Push | Raise | Attempt | Loop | Parallel
Block: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A saga's body."""

    block: Block
    undo_failure: Literal["halt", "continue"] = "halt"


class Boom(Exception):
    """A step fails."""


class BodyError(Exception):
    """The body fails."""


class World(Protocol):
    """Where a program runs."""

    def call(self, node: Call) -> Any:
        """Run a step; an awaitable where programs run on an event loop."""

    def push(self, node: Push) -> None:
        """Push a compensation."""

    def between(self) -> None:
        """Called between two nodes."""


async def run(block: Block, world: World) -> None:
    """Run a block in a world."""
    for node in block:
        world.between()
        match node:
            case Call():
                outcome = world.call(node)
                if inspect.isawaitable(outcome):
                    await outcome
            case Push():
                world.push(node)
            case Raise():
                raise BodyError("the body fails")
            case Attempt():
                try:
                    await run(node.block, world)
                except Exception:
                    await run(node.otherwise, world)
            case Loop():
                for _ in range(node.times):
                    await run(node.block, world)
            case Parallel():
                await _run_parallel(node, world)


async def _run_parallel(node: Parallel, world: World) -> None:
    branches = [run(block, world) for block in node.branches]
    match node.kind:
        case "gather":
            await asyncio.gather(*branches)
        case "gather_all":
            for outcome in await asyncio.gather(*branches, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        case "task_group":
            async with asyncio.TaskGroup() as group:
                for branch in branches:
                    group.create_task(branch)
        case "as_completed":
            # Given coroutines, it would start them in the order of a set: any order.
            tasks = [asyncio.ensure_future(branch) for branch in branches]
            for next_outcome in asyncio.as_completed(tasks):
                await next_outcome
                await world.call(Call(0))
        case "limited":
            gate = asyncio.Semaphore(2)
            await asyncio.gather(*(_limited(gate, branch) for branch in branches))
        case "race":
            await _race(branches)
        case "deferred":
            for branch in branches:
                branch.close()
            await _deferred([b[0] for b in node.branches if b and isinstance(b[0], Call)], world)


async def _limited(gate: asyncio.Semaphore, branch: Coroutine[Any, Any, None]) -> None:
    try:
        async with gate:
            await branch
    finally:
        branch.close()


async def _race(branches: list[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.ensure_future(branch) for branch in branches]
    done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


async def _deferred(calls: list[Call], world: World) -> None:
    pending = [world.call(call) for call in calls]
    try:
        while pending:
            await pending.pop()
    finally:
        for never_awaited in pending:
            never_awaited.close()


# --- strategies

_names = st.integers(0, NAMES - 1)
_few = st.sampled_from([0, 0, 0, 1, 2])


def _calls(*, fatal_undos: bool) -> st.SearchStrategy[Node]:
    rarely = st.sampled_from([False] * 5 + [True])
    return st.builds(
        Call,
        name=_names,
        undo=st.sampled_from([True, True, True, False]),
        fails=rarely,
        flaky=_few,
        undo_flaky=_few,
        undo_fails=rarely if fatal_undos else st.just(False),
    )


def _leaves(*, fatal_undos: bool) -> st.SearchStrategy[Node]:
    call = _calls(fatal_undos=fatal_undos)
    return st.one_of(call, call, call, call, st.builds(Push, _names, _few), st.just(Raise()))


def blocks_of(nodes: st.SearchStrategy[Node], longest: int) -> st.SearchStrategy[Block]:
    """Blocks of these nodes."""
    return st.lists(nodes, max_size=longest).map(tuple)


def _nested(inner: st.SearchStrategy[Node], *, concurrent: bool) -> st.SearchStrategy[Node]:
    block = blocks_of(inner, 3)
    kinds: list[st.SearchStrategy[Node]] = [
        st.builds(Attempt, block, block),
        st.builds(Loop, st.integers(1, 3), block),
    ]
    if concurrent:
        names: list[Kind] = [
            "gather",
            "gather_all",
            "task_group",
            "as_completed",
            "limited",
            "race",
            "deferred",
        ]
        branches = st.lists(block, min_size=1, max_size=4).map(tuple)
        parallel = st.builds(Parallel, st.sampled_from(names), branches)
        kinds = [*kinds, parallel, parallel, parallel]
    return st.one_of(kinds)


def programs(*, concurrent: bool, fatal_undos: bool = False) -> st.SearchStrategy[Program]:
    """Programs for sync sagas, or for async ones."""
    nodes = st.recursive(
        _leaves(fatal_undos=fatal_undos),
        lambda inner: _nested(inner, concurrent=concurrent),
        max_leaves=12,
    )
    # Most sagas end with a failure: it is what is to be seen.
    end: st.SearchStrategy[Block] = st.sampled_from([(Raise(),), (Call(1, fails=True),), ()])
    block = st.tuples(blocks_of(nodes, 5), end).map(lambda pair: pair[0] + pair[1])
    return st.builds(Program, block, st.sampled_from(["halt", "continue"]))
