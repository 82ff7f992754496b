"""Outcomes that DBOS refused to record are kept, and told once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sagas import _kept
from sagas._kept import Age, Kept


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    _kept.forget_all()
    yield
    _kept.forget_all()


def test_an_outcome_is_told_once() -> None:
    """Whoever asks first has it; a second one must find out."""
    _kept.keep("s", 2, "charge", Kept(value="paid"), Age())
    found = _kept.take("s", 2, "charge", Age())
    assert found is not None
    assert found.get() == "paid"
    assert _kept.take("s", 2, "charge", Age()) is None


@pytest.mark.parametrize(
    "other", [("t", 2, "charge"), ("s", 3, "charge"), ("s", 2, "reserve"), ("s", 0, "undo:2:x")]
)
def test_it_is_told_of_that_very_step(other: tuple[str, int, str]) -> None:
    """Another saga, step or name has nothing of it."""
    _kept.keep("s", 2, "charge", Kept(value="paid"), Age())
    assert _kept.take(*other, Age()) is None
    assert _kept.take("s", 2, "charge", Age()) is not None


def test_none_is_a_result_and_an_error_is_raised() -> None:
    """What the step returned or raised is what it returns or raises again."""
    error = LookupError("x")
    assert Kept().get() is None
    with pytest.raises(LookupError) as caught:
        Kept(error=error).get()
    assert caught.value is error


def test_a_later_outcome_takes_the_place() -> None:
    """Of two executions the later one tells."""
    _kept.keep("s", 2, "charge", Kept(value=1), Age())
    _kept.keep("s", 2, "charge", Kept(value=2), Age())
    found = _kept.take("s", 2, "charge", Age())
    assert found is not None
    assert found.get() == 2


def test_there_are_not_ever_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the oldest are forgotten: their steps are settled."""
    monkeypatch.setattr(_kept, "MOST", 2)
    for n in range(3):
        _kept.keep("s", n, "charge", Kept(value=n), Age())
    assert [_kept.take("s", n, "charge", Age()) is not None for n in range(3)] == [
        False,
        True,
        True,
    ]


def test_all_can_be_forgotten() -> None:
    """A process that leaves its database takes nothing of it to the next."""
    _kept.keep("s", 2, "charge", Kept(), Age())
    _kept.forget_all()
    assert _kept.take("s", 2, "charge", Age()) is None


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (Age(3, (1, 50)), True),
        (Age(4, (1, 50)), True),
        (Age(5, (1, 50)), False),
        (Age(3, (2, 50)), False),
        (Age(3, (1, 51)), False),
    ],
)
def test_it_is_told_to_the_next_execution(age: Age, told: bool) -> None:
    """Where another one may have come between, the step may have been begun once more."""
    _kept.keep("s", 2, "charge", Kept(value="paid"), Age(3, (1, 50)))
    assert (_kept.take("s", 2, "charge", age) is not None) is told
