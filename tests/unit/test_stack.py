"""The compensation stack, and the decisions of unwinding."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas._stack import (
    Recorded,
    Stack,
    first_not_passed,
    is_stale,
    undo_name,
    undo_outcomes,
    undone_step,
)
from steps.abc import Compensation

quick = settings(max_examples=50, deadline=None)

NAMES = [
    "reserve",
    "a:b",
    "undo:7:reserve",
    "x#2",
    "a:b#3",
    "Shop.reserve",
    "1:2",
    "#",
    "two\nlines",
]


def compensation(name: str) -> Compensation:
    return Compensation(name=name, undo=lambda: None)


def row(step_id: int, name: str, failed: bool = False) -> Recorded:
    return Recorded(step_id, name, failed)


def undo_row(step_id: int, of: int, name: str = "s", failed: bool = False) -> Recorded:
    return Recorded(step_id, undo_name(of, name), failed)


def test_the_stack_is_ordered_by_step_id() -> None:
    """In whatever order steps complete, they are undone by descending step ID."""
    for order in itertools.permutations([1, 2, 3, 10]):
        stack = Stack()
        for step_id in order:
            stack.push(step_id, compensation(f"s{step_id}"))
        assert [(i, c.name) for i, c in stack.newest_first()] == [
            (10, "s10"),
            (3, "s3"),
            (2, "s2"),
            (1, "s1"),
        ]


@quick
@given(st.lists(st.integers(0, 10**6), unique=True), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_time(step_ids: list[int], chance: random.Random) -> None:
    """Two executions whose steps complete in different order unwind alike."""
    one, other = Stack(), Stack()
    for step_id in step_ids:
        one.push(step_id, compensation(str(step_id)))
    for step_id in chance.sample(step_ids, len(step_ids)):
        other.push(step_id, compensation(str(step_id)))
    names = [c.name for _, c in one.newest_first()]
    assert names == [c.name for _, c in other.newest_first()]
    assert names == [str(i) for i in sorted(step_ids, reverse=True)]
    assert len(one) == len(step_ids)


def test_a_step_has_one_entry() -> None:
    """A step that is passed again does not lead to a second undo."""
    stack = Stack()
    stack.push(1, compensation("first"))
    stack.push(1, compensation("again"))
    assert [c.name for _, c in stack.newest_first()] == ["again"]
    assert len(stack) == 1


def test_looking_at_the_stack_changes_nothing() -> None:
    """The order of undoing can be asked for more than once."""
    stack = Stack()
    stack.push(1, compensation("a"))
    stack.newest_first().clear()
    assert len(stack.newest_first()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_undo_tells_its_step(name: str) -> None:
    """Whatever a step is called, the record of its undo tells which step it undid."""
    for step_id in (0, 1, 42, 10**9):
        assert undone_step(undo_name(step_id, name)) == step_id
        assert undone_step(undo_name(step_id, name) + "#2") == step_id


@quick
@given(st.integers(0), st.text())
def test_the_name_of_any_undo_tells_its_step(step_id: int, name: str) -> None:
    """No text in a step's name leads to another step."""
    assert undone_step(undo_name(step_id, name)) == step_id


def test_the_name_of_an_undo_is_that_of_the_contract() -> None:
    """The undo of step 3 `reserve_inventory` is the DBOS step `undo:3:reserve_inventory`."""
    assert undo_name(3, "reserve_inventory") == "undo:3:reserve_inventory"


@pytest.mark.parametrize(
    "name", ["reserve", "undo", "undo:", "undo:x:reserve", "undo:3", "undo:-1:a", "xundo:1:a", ""]
)
def test_another_name_is_no_undo(name: str) -> None:
    """The record of a step is not taken for that of an undo."""
    assert undone_step(name) is None


def test_recorded_undos_by_the_step_that_they_undid() -> None:
    """Undos are found by step, whether they succeeded or not; steps are left out."""
    rows = [row(1, "a"), row(2, "b", failed=True), undo_row(5, 2), undo_row(6, 1, failed=True)]
    assert undo_outcomes(rows) == {2: rows[2], 1: rows[3]}


def test_the_newest_undo_of_a_step_counts() -> None:
    """An undo that failed and was done later on is done."""
    rows = [undo_row(5, 1, failed=True), Recorded(8, "undo:1:s#2", failed=False)]
    assert undo_outcomes(rows) == {1: rows[1]}


@pytest.mark.parametrize(
    ("rows", "stale"),
    [
        ([], False),
        ([row(1, "a"), row(2, "b")], False),
        ([row(1, "a"), undo_row(4, 1)], False),
        ([row(1, "a"), undo_row(3, 1)], False),
        ([row(1, "a"), row(3, "c")], True),
        ([row(1, "a"), row(7, "c")], True),
        ([row(1, "a"), undo_row(4, 1), row(5, "c")], True),
        ([row(3, "c", failed=True)], True),
    ],
)
def test_a_turn_is_stale_when_a_step_was_recorded_after_it(
    rows: list[Recorded], stale: bool
) -> None:
    """A mark of an execution that had lost the saga is known by a step at or after it."""
    assert is_stale(3, rows) is stale


@pytest.mark.parametrize(
    ("rows", "drawn", "passed", "missed"),
    [
        ([], {}, {}, None),
        ([(1, "a"), (2, "b")], {1: "a", 2: "b"}, {1: "a", 2: "b"}, None),
        # Drawn, but its outcome did not come to this execution.
        ([(1, "a"), (2, "b")], {1: "a", 2: "b"}, {1: "a"}, 2),
        # Recorded where this body had ended.
        ([(1, "a"), (5, "e")], {1: "a"}, {1: "a"}, 5),
        ([(1, "a"), (4, "e")], {1: "a"}, {1: "a"}, 4),
        # Another step under the same ID.
        ([(1, "a"), (2, "b")], {1: "a", 2: "c"}, {1: "a", 2: "c"}, 2),
        # Not one of ours: DBOS's own calls draw IDs that this library does not see.
        ([(1, "a"), (2, "DBOS.sleep"), (3, "c")], {1: "a", 3: "c"}, {1: "a", 3: "c"}, None),
        # New steps after the recorded ones are no miss.
        ([(1, "a")], {1: "a", 2: "b", 3: "c"}, {1: "a", 2: "b", 3: "c"}, None),
        # The first of several.
        ([(1, "a"), (2, "b"), (3, "c")], {1: "a", 2: "b", 3: "c"}, {1: "a"}, 2),
    ],
)
def test_a_recorded_step_that_a_replay_did_not_pass(
    rows: Any, drawn: dict[int, str], passed: dict[int, str], missed: int | None
) -> None:
    """A replay that does not come by a recorded step, in its place and by its name, is told."""
    found = first_not_passed([row(*r) for r in rows], drawn, passed, end=4)
    assert (found.step_id if found else None) == missed


def test_recorded_undos_need_not_be_passed() -> None:
    """The undos of an earlier execution lie after the body, and are no missed steps."""
    rows = [row(1, "a"), undo_row(6, 1), undo_row(7, 1)]
    assert first_not_passed(rows, {1: "a"}, {1: "a"}, end=2) is None
