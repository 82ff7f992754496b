"""Marks: what a saga writes about itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas import AuditEntry, Failure
from sagas._marks import (
    AUDIT,
    LONGEST_TEXT,
    NEVER_RAN,
    PARKED,
    PARKED_MS,
    PREFIX,
    REQUEST,
    RESOLVED,
    RETRY,
    STOP,
    STRUGGLING,
    TAKEOVERS,
    TERMINATED,
    TIMEOUT,
    TURN,
    Marks,
    Parked,
    Resolution,
    Struggling,
    Turn,
    json_text,
    of_user,
    resolved_attributes,
    stop_attributes,
    terminated_attributes,
)
from sagas._stop import Stop, Why

quick = settings(max_examples=50, deadline=None)

any_text = st.text(st.characters(exclude_categories=[]), max_size=50)


def stored(mark: Turn | Parked | Struggling) -> Marks:
    """The mark after a trip through the database."""
    return parsed(mark.attributes())


def parsed(attributes: dict[str, Any]) -> Marks:
    return Marks.parse(json.loads(json.dumps(attributes)))


def test_a_turn_survives_the_database() -> None:
    """Where and why a saga turned round is read as it was written."""
    turn = Turn(4, Failure("charge", 3, "shop.CardError", "no money", "Traceback ..."), 1_700_000)
    assert stored(turn) == Marks(turn=turn)


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


@pytest.mark.parametrize(
    "stop", [None, *[Stop(why, "no stock", "ann", 1_700_000) for why in Why], Stop(Why.CANCEL, "")]
)
def test_what_stopped_a_saga_survives_the_database(stop: Stop | None) -> None:
    """Who stopped a saga, why and when is read as it was written, alone and with the turn."""
    turn = Turn(4, Failure("charge", 3, "E", "m"), None, stop)
    assert stored(turn).turn == turn
    if stop is not None:
        assert parsed(stop_attributes(stop)).stop == stop
        assert stop_attributes(stop)[REQUEST] is True


def test_a_stop_of_a_later_version_is_a_stop() -> None:
    """A request of a kind that is not known here stops the saga all the same."""
    assert Stop.parse({"why": "moon", "reason": "full"}) == Stop(Why.CANCEL, "full")
    assert Stop.parse("cancel") is None


@pytest.mark.parametrize("parked", [Parked("changed"), Parked("unknown", 1_700_000, 3, "pay")])
def test_the_marks_of_a_parked_saga(parked: Parked) -> None:
    """Why, when and for which step a saga is parked is read from its mark."""
    assert stored(parked) == Marks(parked=parked)


def test_the_mark_of_an_earlier_version_is_read() -> None:
    """A saga that an earlier version parked still says why."""
    assert Marks.parse({PARKED: "no longer matches"}).parked == Parked("no longer matches")


def test_other_marks_survive_the_database() -> None:
    """What fails, what a person did, and what is counted is read as it was written."""
    failing = Struggling(2, "reserve", 7, "closed")
    assert stored(failing).struggling == failing
    assert parsed(terminated_attributes("mess", "ann", 5)).terminated == Stop(
        Why.CANCEL, "mess", "ann", 5
    )
    resolved = resolved_attributes(3, "by phone", "ann", 5)
    assert resolved[REQUEST] is True
    assert parsed({**resolved, **resolved_attributes(12, "x", None, 6)}).resolved == {
        3: Resolution("by phone", "ann"),
        12: Resolution("x"),
    }
    counted = {NEVER_RAN: True, RETRY: 2, TIMEOUT: 1.5, PARKED_MS: 10, TAKEOVERS: 3}
    assert parsed(counted) == Marks(never_ran=True, retry=2, timeout=1.5, parked_ms=10, takeovers=3)


def test_the_audit_is_in_order() -> None:
    """Whatever the order of the attributes, and of two at one moment both are kept."""
    entries = [AuditEntry("cancel", 9, "ann", "late"), AuditEntry("retry", 10), AuditEntry("x", 10)]
    attributes: dict[str, Any] = {}
    for salt, entry in zip("cab", reversed(entries), strict=True):
        attributes |= entry.attributes(salt)
    audit = parsed(attributes).audit
    assert audit[0] == entries[0]
    assert set(audit) == set(entries)


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
        {STOP: "x", TERMINATED: True, STRUGGLING: {}, NEVER_RAN: 1, RETRY: True, TIMEOUT: "x"},
        {RESOLVED + "3": None, RESOLVED + "x": {"note": ""}, AUDIT + "1": {}, TAKEOVERS: "1"},
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
