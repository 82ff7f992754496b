"""Where the time of a saga goes: cProfile of the thread that runs the four-step sagas."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import pstats
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from . import by_hand, orders
from .application import Application
from .databases import Backend, Databases, config
from .rounds import Outcome
from .sides import SideName, side

LINES = 30
"""How many functions are shown."""

_LAYERS = ("sagas", "steps", "benchmarks", "dbos", "sqlalchemy", "psycopg", "psycopg_binary")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be profiled."""

    side: SideName
    outcome: Outcome
    is_async: bool
    database: Backend
    count: int

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Wish:
        """The wish of a command line."""
        return cls(
            side=arguments.side,
            outcome="failure" if arguments.fail else "success",
            is_async=arguments.kind == "async",
            database=arguments.database,
            count=arguments.count,
        )


def run(databases: Databases, wish: Wish) -> str:
    """Profile; the text to print."""
    with Application(config(databases.make(wish.database))) as application:
        return application.call(_profile, wish)


def _profile(wish: Wish) -> str:
    profiler = cProfile.Profile()
    workflow: Any = _workflow(wish)
    failure = side(wish.side).failure
    order = 7 if wish.outcome == "success" else -7

    async def on_loop(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(failure):
                await cast(Awaitable[Any], workflow(order))

    def blocking(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(failure):
                workflow(order)

    def some(count: int) -> None:
        asyncio.run(on_loop(count)) if wish.is_async else blocking(count)

    some(10)
    profiler.enable()
    some(wish.count)
    profiler.disable()
    return _text(profiler, wish)


def _workflow(wish: Wish) -> object:
    """Called inline, so that it runs on the profiled thread."""
    if wish.side == "saga":
        return orders.fulfil_async if wish.is_async else orders.fulfil
    return by_hand.fulfil_async if wish.is_async else by_hand.fulfil


def _text(profiler: cProfile.Profile, wish: Wish) -> str:
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]]
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    layers: dict[str, float] = defaultdict(float)
    for (file, _, _), (_, _, own, _, _) in stats.items():
        layers[_layer(file)] += own
    each = 1e6 / wish.count
    lines = [f"{wish}", "", "microseconds a saga (under the profiler), by layer:"]
    lines += [f"{own * each:9.0f}  {n}" for n, own in sorted(layers.items(), key=lambda x: -x[1])]
    lines += ["", "     own       all   calls  the layer's functions"]
    ours = [(k, v) for k, v in stats.items() if _layer(k[0]) in ("sagas", "steps")]
    for (file, line, name), (_, calls, own, total, _) in sorted(ours, key=lambda x: -x[1][3])[
        :LINES
    ]:
        where = f"{_layer(file)}/{Path(file).name}:{line} {name}"
        lines.append(f"{own * each:8.0f}  {total * each:8.0f}  {calls / wish.count:6.1f}  {where}")
    return "\n".join(lines)


def _layer(file: str) -> str:
    folder = Path(file).parent
    for layer in _LAYERS:
        if layer == folder.name or layer in folder.parts[-6:]:
            return layer
    return "python"
