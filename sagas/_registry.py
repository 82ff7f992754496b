"""The sagas that are defined in this process, and what the supervisor must know of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnTerminate = Literal["compensate", "leave"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a saga's definition says about being stopped from outside."""

    on_terminate: OnTerminate = "compensate"
    """What to do when DBOS has cancelled it: undo what is done, or leave it as it stands."""
    max_recovery_attempts: int | None = None
    """How often one run of it is taken up again; None: without limit."""


_rules: dict[str, Rules] = {}


def add(name: str, rules: Rules) -> None:
    """A saga was defined."""
    _rules[name] = rules


def of(name: str) -> Rules | None:
    """The rules of a saga; None where it is not defined here."""
    return _rules.get(name)


def most_takeovers(name: str) -> int | None:
    """How often a saga may be taken up again; None: without limit."""
    rules = _rules.get(name)
    return None if rules is None else rules.max_recovery_attempts


def names() -> list[str]:
    """The sagas that are defined here."""
    return sorted(_rules)
