"""`python -m benchmarks`: run them, print tables, keep JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from . import launch_options, profiling, report, scale, throughput, workers
from .databases import Databases


class Benchmark(Protocol):
    """One benchmark."""

    def __call__(self, databases: Databases, *, quick: bool) -> report.Report:
        """Run it; `quick` for a first impression."""


BENCHMARKS: dict[str, Benchmark] = {
    "throughput": throughput.run,
    "workers": workers.run,
    "launch-options": launch_options.run,
    "scale": scale.run,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller scales")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, help="only this one; may be repeated"
    )
    parser.add_argument("--out", type=Path, help="the JSON file; default: a new one in results/")
    commands = parser.add_subparsers(dest="command")
    profile = commands.add_parser("profile", help="where the time of a saga goes")
    profile.add_argument("--count", type=int, default=300, help="sagas to profile")
    profile.add_argument("--fail", action="store_true", help="failing ones")
    profile.add_argument("--kind", choices=("sync", "async"), default="sync")
    profile.add_argument("--side", choices=("saga", "by-hand"), default="saga")
    profile.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    return parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    with Databases() as databases:
        if arguments.command == "profile":
            print(profiling.run(databases, profiling.Wish.of(arguments)))
            return
        chosen: list[Callable[..., report.Report]] = [
            benchmark
            for name, benchmark in BENCHMARKS.items()
            if not arguments.only or name in arguments.only
        ]
        reports = []
        for benchmark in chosen:
            done = benchmark(databases, quick=arguments.quick)
            print(f"\n{done.name}\n\n{done.table()}\n", flush=True)
            reports.append(done)
    print(f"Kept in {report.write(reports, arguments.out)}")


if __name__ == "__main__":
    main()
