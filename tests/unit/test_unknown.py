"""Unknown outcomes: the sentinel, and the choice that a step has to make once."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import steps
from steps import NOT_DONE, NotDone, StepDefinitionError
from steps._unknown import check_choice, checked_undo_when


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_not_done_comes_back_as_itself(protocol: int) -> None:
    """What a probe answered is told by identity, also after it has been stored."""
    assert pickle.loads(pickle.dumps(NOT_DONE, protocol)) is NOT_DONE
    assert pickle.loads(pickle.dumps([NOT_DONE, {"a": NOT_DONE}], protocol)) == [
        NOT_DONE,
        {"a": NOT_DONE},
    ]


def test_not_done_is_stored_by_its_public_name() -> None:
    """The module that defines it can be moved without a stored answer being lost."""
    assert b"_unknown" not in pickle.dumps(NOT_DONE)
    assert b"NOT_DONE" in pickle.dumps(NOT_DONE)
    assert steps.NOT_DONE is NOT_DONE


def test_there_is_one_not_done() -> None:
    """Neither a copy nor a call of its class makes another one."""
    assert NotDone() is NOT_DONE
    assert copy.copy(NOT_DONE) is NOT_DONE
    assert copy.deepcopy([NOT_DONE])[0] is NOT_DONE


def test_not_done_is_like_nothing_else() -> None:
    """It reads as what it is, is not taken for False or None, and can carry nothing."""
    assert repr(NOT_DONE) == "NOT_DONE"
    assert NOT_DONE
    assert NOT_DONE != None  # noqa: E711
    assert isinstance(NOT_DONE, NotDone)
    with pytest.raises(AttributeError):
        NOT_DONE.result = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [None, "completed", "attempted"])
def test_the_values_of_undo_when(value: Any) -> None:
    """`undo_when` has two values, and can be left out."""
    assert checked_undo_when(value, "charge") is value


@pytest.mark.parametrize("value", ["", "always", "Attempted", True, 0, ["completed"], b"completed"])
def test_other_values_of_undo_when_are_refused(value: Any) -> None:
    """A value that is neither is refused, with the two that there are."""
    with pytest.raises(StepDefinitionError, match=r'"completed".*"attempted"') as e:
        checked_undo_when(value, "charge")
    assert "'charge'" in str(e.value)
    assert repr(value) in str(e.value)


def choose(**options: Any) -> None:
    check_choice(
        "charge", **{"timeout": None, "undo": None, "undo_when": None, "probe": None} | options
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timeout": 3.0},
        {"undo": "undo"},
        {"undo": "undo", "undo_when": "attempted"},
        {"undo": "undo", "probe": "probe"},
        {"timeout": 3.0, "undo_when": "attempted"},
        {"timeout": 3.0, "undo": "undo", "undo_when": "completed"},
        {"timeout": 3.0, "undo": "undo", "undo_when": "attempted"},
        {"timeout": 3.0, "undo": "undo", "probe": "probe"},
    ],
)
def test_who_has_chosen_or_needs_not(options: dict[str, Any]) -> None:
    """A choice is asked only where there are both a timeout and an undo."""
    choose(**options)


def test_a_timeout_and_an_undo_need_a_choice() -> None:
    """Without a choice the error explains all three."""
    with pytest.raises(StepDefinitionError) as e:
        choose(timeout=3.0, undo="undo")
    message = str(e.value)
    assert "'charge' has a timeout and an undo" in message
    for choice in ("probe=", 'undo_when="attempted"', 'undo_when="completed"'):
        assert f"\n- {choice}" in message
    assert "NOT_DONE" in message
    assert "idempotency_key()" in message


@pytest.mark.parametrize("undo_when", ["completed", "attempted"])
@pytest.mark.parametrize("more", [{}, {"timeout": 3.0, "undo": "undo"}])
def test_one_choice_not_two(undo_when: str, more: dict[str, Any]) -> None:
    """A probe and `undo_when` answer the same question: both at once are refused."""
    with pytest.raises(StepDefinitionError, match="Give one of them"):
        choose(undo_when=undo_when, probe="probe", **more)
