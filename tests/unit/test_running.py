"""The registry of the executions of this process, and what one leaves to the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from sagas import _kept, _running


class Execution:
    """As much of one as the registry looks at."""

    def __init__(self, saga_id: str) -> None:
        self.saga_id = saga_id
        self.is_async = False
        self.in_body = False
        self.thread = threading.get_ident()
        self.fenced: list[str] = []

    def fence(self, why: str) -> None:
        self.fenced.append(why)


def execution(saga_id: str) -> Any:
    return cast(Any, Execution(saga_id))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test begins and ends without executions."""
    yield
    for run in _running.all_runs():
        _running.remove(run)
    _running.set_watcher(None, None)
    _kept.forget_all()


def test_an_execution_is_told_of_those_before_it() -> None:
    """A new execution learns which it supersedes; only those of its own saga."""
    first, second, other = execution("s"), execution("s"), execution("t")
    assert _running.add(first) == []
    assert _running.add(other) == []
    assert _running.add(second) == [first]
    assert _running.of("s") is second
    assert _running.count() == 2
    _running.remove(second)
    assert _running.of("s") is first
    _running.remove(first)
    assert _running.of("s") is None
    assert _running.all_runs() == [other]


def test_the_end_of_an_unknown_execution_changes_nothing() -> None:
    """An execution that is removed twice takes no other with it."""
    first, second = execution("s"), execution("s")
    _running.add(first)
    _running.remove(first)
    _running.add(second)
    _running.remove(first)
    assert _running.all_runs() == [second]


def test_all_are_fenced() -> None:
    """When the process has lost its name, every execution is told."""
    runs = [execution("s"), execution("s"), execution("t")]
    for run in runs:
        _running.add(run)
    _running.bar("gone")
    _running.unbar()
    assert [run.fenced for run in runs] == [["gone"]] * 3


def test_the_watcher_hears_of_what_runs_here() -> None:
    """Marks of sagas that run elsewhere are none of its business; lost executions always are."""
    noticed: list[str] = []
    lost: list[str] = []
    _running.notice("s")
    _running.lose("s")
    _running.set_watcher(noticed.append, lost.append)
    _running.add(execution("s"))
    _running.notice("s")
    _running.notice("elsewhere")
    _running.lose("t")
    assert (noticed, lost) == (["s"], ["t"])


@pytest.mark.parametrize(
    ("handed_over", "takeovers", "told"),
    [(1, 1, frozenset({3})), (None, 0, None), (None, 1, None), (1, 2, None), (2, 1, None)],
)
def test_what_was_begun_is_told_to_the_next_execution_only(
    handed_over: int | None, takeovers: int, told: frozenset[int] | None
) -> None:
    """Where another process may have run the saga in between, nothing is known."""
    _kept.leave("s", frozenset({3}))
    if handed_over is not None:
        _kept.hand_over("s", handed_over)
    assert _kept.inherit("s", takeovers) == told
    assert _kept.inherit("s", takeovers) is None, "it is told once"
