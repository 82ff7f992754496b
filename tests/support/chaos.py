"""How much of a long list of cases is run: a sample in CI, all of it by `make chaos`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

ALL = os.environ.get("SAGAS_CHAOS") == "all"
"""Whether everything is to be run."""


def sample(cases: Sequence[T], every: int, *, offset: int = 0) -> list[T]:
    """Each `every`-th case, always the same ones; all of them in a long run."""
    return list(cases if ALL else cases[offset % every :: every])
