"""Marks: what a saga writes about itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas import Failure
from sagas._marks import LONGEST_TEXT, PARKED, PREFIX, TURN, Marks, Turn, json_text, of_user

quick = settings(max_examples=50, deadline=None)

any_text = st.text(st.characters(exclude_categories=[]), max_size=50)


def stored(mark: Turn) -> Marks:
    """The mark after a trip through the database."""
    return Marks.parse(json.loads(json.dumps(mark.attributes())))


def test_a_turn_survives_the_database() -> None:
    """Where and why a saga turned round is read as it was written."""
    turn = Turn(4, Failure("charge", 3, "shop.CardError", "no money", "Traceback ..."), 1_700_000)
    assert stored(turn) == Marks(turn=turn, parked=None)


def test_a_turn_of_the_body_survives_the_database() -> None:
    """A failure of no step keeps saying so."""
    turn = Turn(0, Failure(None, None, "ValueError", ""))
    assert stored(turn).turn == turn


@quick
@given(any_text, any_text, st.integers(0, 10**6))
def test_any_text_can_be_stored(message: str, traceback: str, at: int) -> None:
    """No text, whatever is in it, keeps a saga from being marked, on PostgreSQL either."""
    turn = Turn(at, Failure("s", 1, "E", json_text(message), json_text(traceback)))
    for text in (turn.cause.message, turn.cause.traceback):
        assert "\x00" not in text
        assert text.encode("utf-8").decode("utf-8") == text
    assert stored(turn).turn == turn


@quick
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=50))
def test_ordinary_text_is_kept_as_it_is(text: str) -> None:
    """Text that JSON can hold is not changed."""
    assert json_text(text) == text


def test_what_json_cannot_hold_stays_legible() -> None:
    """A NUL and half a surrogate pair are spelt out."""
    assert json_text("a\x00b") == "a\\x00b"
    assert json_text("a\ud800b") == "a\\ud800b"


@pytest.mark.parametrize("length", [LONGEST_TEXT - 1, LONGEST_TEXT, LONGEST_TEXT + 1, 10**6])
def test_long_text_loses_its_middle(length: int) -> None:
    """Of very long text the beginning and the end are kept."""
    text = "A" + "x" * (length - 2) + "Z"
    short = json_text(text)
    assert (short[0], short[-1]) == ("A", "Z")
    assert len(short) <= LONGEST_TEXT + 20
    assert (short == text) == (length <= LONGEST_TEXT)


def test_the_marks_of_a_parked_saga() -> None:
    """Why a saga is parked is read from its mark."""
    assert Marks.parse({PARKED: "no longer matches"}) == Marks(parked="no longer matches")


@pytest.mark.parametrize(
    "attributes",
    [
        None,
        {},
        "text",
        [],
        {TURN: None, PARKED: None},
        {TURN: "x", PARKED: 3},
        {TURN: {}},
        {TURN: {"at": "3"}},
        {TURN: {"at": None, "message": "x"}},
        {"turn": {"at": 3}, "parked": "x"},
    ],
)
def test_what_is_no_mark_is_none(attributes: Any) -> None:
    """Nothing, a mark that was cleared and foreign attributes are no marks."""
    assert Marks.parse(attributes) == Marks()


def test_a_mark_with_missing_facts_still_counts() -> None:
    """A turn is a turn even where nothing more than its place can be read."""
    turn = Marks.parse({TURN: {"at": 3}}).turn
    assert turn is not None
    assert (turn.at, turn.time) == (3, None)


def test_the_users_attributes_are_kept_apart() -> None:
    """What the application attached is shown without the marks."""
    attributes = {"order": 7, TURN: {"at": 1}, PARKED: None, PREFIX + "later": 1, "sagas": 2}
    assert of_user(attributes) == {"order": 7, "sagas": 2}
    assert of_user(None) == {}
    assert of_user("x") == {}
