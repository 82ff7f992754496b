"""
Which call this is: a fingerprint of a step's arguments.

DBOS finds a recorded step by its number and name. The branches of a concurrent saga may call steps
of one name in another order than they did before a crash; then only the arguments tell.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

_PLAIN = (str, int, float, complex, bool, bytes, type(None), date, time, timedelta, Decimal, UUID)


def fingerprint(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """
    The same text for the same arguments, in every process.

    What cannot be told reliably (an object of a class of one's own) counts by its class alone.
    """
    try:
        text = _text((args, dict(sorted(kwargs.items()))))
    except RecursionError:
        return "deep"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _text(value: Any) -> str:
    kind = type(value).__qualname__
    if isinstance(value, enum.Enum):
        return f"{kind}.{value.name}"
    if isinstance(value, _PLAIN):
        return f"{kind}:{value!r}"
    if isinstance(value, list | tuple):
        return f"{kind}[{','.join(map(_text, value))}]"
    if isinstance(value, set | frozenset):
        return f"{kind}{{{','.join(sorted(map(_text, value)))}}}"
    if isinstance(value, dict):
        return f"{kind}{{{','.join(f'{_text(k)}={_text(v)}' for k, v in value.items())}}}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
        return f"{kind}({','.join(f'{n}={_text(v)}' for n, v in fields)})"
    return kind
