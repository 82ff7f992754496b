"""What many short rounds say: medians, and the ratio of two sides with its uncertainty. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one side."""

    count: int
    """How many sagas."""
    seconds: float
    cpu_seconds: float
    """Of the processes that ran them, all their threads."""

    @property
    def per_second(self) -> float:
        """Sagas a second."""
        return self.count / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor time a saga."""
        return 1000 * self.cpu_seconds / self.count


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides, measured in turn."""

    ours: float
    """Median of our rounds, sagas a second."""
    theirs: float
    """Median of the other side's rounds."""
    ratio: float
    """Median of the ratios of neighbouring rounds: what hits both alike falls out."""
    low: float
    """The ratio's median lies above this with 97.5 %, by the sign test."""
    high: float
    cpu_ratio: float
    """The same of processor time, theirs by ours: it holds also where others load the machine."""
    our_cpu_ms: float
    their_cpu_ms: float
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def compare(ours: Sequence[Round], theirs: Sequence[Round]) -> Comparison:
    """Compare two sides whose rounds were run in pairs."""
    ratios = [a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True)]
    low, high = _median_interval(ratios)
    return Comparison(
        ours=statistics.median(r.per_second for r in ours),
        theirs=statistics.median(r.per_second for r in theirs),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        cpu_ratio=statistics.median(b.cpu_ms / a.cpu_ms for a, b in zip(ours, theirs, strict=True)),
        our_cpu_ms=statistics.median(r.cpu_ms for r in ours),
        their_cpu_ms=statistics.median(r.cpu_ms for r in theirs),
        rounds=len(ratios),
    )


def _median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what `values` are a sample of lies, with 95 %; all of them if too few."""
    ordered = sorted(values)
    count = len(ordered)
    tail = 0.0
    out = 0
    while out < count // 2:
        tail += math.comb(count, out) / 2**count
        if tail > 0.025:
            break
        out += 1
    inner = max(out - 1, 0)
    return ordered[inner], ordered[-1 - inner]
