"""
Scopes: blocks of a saga's body whose steps are undone when an exception leaves them.

The stack is one, ordered by step ID; a scope is a mark on its entries. So the compensations of a
block that ends well are in their place on the outer stack by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Scope:
    """One execution of one block."""

    name: str
    parent: Scope | None
    timeout: float | None = None
    """Its time limit, in seconds."""
    deadline: float | None = None
    """When no further step of it begins, in seconds since the epoch."""
    entry: int = 0
    """The ID that was drawn when the body entered it."""
    expired: bool = False
    """Whether a step or a wait has told the body that its deadline has passed."""
    left: bool = False
    """Whether the body has left it."""

    def chain(self) -> Iterator[Scope]:
        """This scope, and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    @property
    def path(self) -> str:
        """The names of the scopes around it and its own."""
        return "/".join(reversed([s.name for s in self.chain()]))


def is_within(inner: Scope | None, outer: Scope) -> bool:
    """Whether `inner` is `outer`, or lies in it."""
    return inner is not None and any(s is outer for s in inner.chain())


def nearest_deadline(scope: Scope | None) -> Scope | None:
    """Of a scope and those around it the one that ends first."""
    bounded = [] if scope is None else [s for s in scope.chain() if s.deadline is not None]
    return min(bounded, key=lambda s: s.deadline or 0.0, default=None)


current_scope: ContextVar[Scope | None] = ContextVar("sagas_scope", default=None)
"""The scope whose block is running here."""

ScopeToken = Token[Scope | None]
