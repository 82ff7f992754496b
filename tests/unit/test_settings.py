"""`Supervision`: what it takes, what it refuses, what it sets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sagas import SagaUsageError, Supervision, _settings
from tests.support.labels import label


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    before = _settings._current
    yield
    _settings._current = before


def test_the_defaults() -> None:
    """Without any, or after None, they hold."""
    _settings.use(Supervision(grace=1))
    _settings.use(None)
    found = (
        _settings.interval(),
        _settings.grace(),
        _settings.attention_after(),
        _settings.failover(),
    )
    assert found == (0.5, 5.0, 5, 10.0)


def test_what_is_set_holds() -> None:
    """Spans of time are seconds or a timedelta; no grace at all is one, no failover too."""
    _settings.use(
        Supervision(interval=timedelta(milliseconds=20), grace=0, attention_after=1, failover=None)
    )
    assert _settings.interval() == 0.02
    assert _settings.grace() == 0.0
    assert _settings.attention_after() == 1
    assert _settings.failover() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0},
        {"interval": -1},
        {"interval": "1"},
        {"interval": None},
        {"interval": float("nan")},
        {"grace": -0.1},
        {"grace": None},
        {"grace": True},
        {"grace": float("inf")},
        {"failover": 0},
        {"failover": "soon"},
        {"attention_after": 0},
        {"attention_after": 1.5},
        {"attention_after": True},
    ],
    ids=label,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """At once, by the name of the setting."""
    with pytest.raises(SagaUsageError, match=next(iter(wrong))):
        Supervision(**wrong)


def test_it_is_frozen_and_by_name_only() -> None:
    """Settings do not change under a running supervisor."""
    with pytest.raises(AttributeError):
        Supervision().interval = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Supervision(1)  # type: ignore[call-arg]
