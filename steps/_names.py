"""One name, one definition: what a name meant when a saga began must be what it means now."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a function was written."""

    module: str
    qualname: str
    file: str
    line: int

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Origin:
        """The origin of `fn`, or of what it wraps."""
        inner = inspect.unwrap(fn)
        code = getattr(inner, "__code__", None)
        return cls(
            module=getattr(inner, "__module__", "") or "",
            qualname=getattr(inner, "__qualname__", type(inner).__qualname__),
            file=code.co_filename if code else "",
            line=code.co_firstlineno if code else 0,
        )

    def is_redefined_by(self, other: Origin) -> bool:
        """
        Whether `other` is this very function, defined again.

        So it is where a factory or a parametrised test runs the same lines twice, and in a
        notebook or at a prompt, where a changed function has a new pseudo-file.
        """
        if self == other:
            return True
        interactive = "<" in other.file or "ipykernel" in other.file
        return interactive and (self.module, self.qualname) == (other.module, other.qualname)


class Names:
    """
    The definitions of one kind, by name.

    Args:
        kind: What they are, for messages.
        error: What to raise.
        per_module: Whether two modules may each have one of a name, where nobody gave it by hand.
    """

    def __init__(self, kind: str, error: type[Exception], *, per_module: bool = False) -> None:
        self._kind = kind
        self._error = error
        self._per_module = per_module
        self._origins: dict[tuple[str, str], Origin] = {}

    def claim(self, name: str, fn: Callable[..., Any], *, given: bool) -> None:
        """
        Take `name` for `fn`.

        Args:
            name: The name.
            fn: What is to have it.
            given: Whether somebody chose it, rather than its being the function's own.

        Raises:
            Exception: (of the kind given) Another function has it.
        """
        origin = Origin.of(fn)
        shared = self._per_module and not given
        key = (origin.module if shared else "", name)
        first = self._origins.setdefault(key, origin)
        if not first.is_redefined_by(origin):
            raise self._error(
                f"Two {self._kind}s are named {name!r}: one at {first.file}:{first.line}, one at "
                f"{origin.file}:{origin.line}. A running saga is continued by name, so each "
                f"needs its own: rename one, or give it name=."
            )
        self._origins[key] = origin


def check_name(name: Any, what: str, error: type[Exception]) -> str:
    """
    `name`, if it can be one.

    Raises:
        Exception: (of the kind given) It is no printable text of 1 to 200 characters.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise error(f"{what} must be printable text of 1 to 200 characters, not {name!r}.")
    return name
