"""Names of parametrized tests."""

from __future__ import annotations

import re


def label(value: object) -> str:
    """`value` in short, the same in every process: without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
