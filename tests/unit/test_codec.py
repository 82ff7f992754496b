"""How values are stored: DBOS's pickle, or a serializer of the configuration."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from sagas import SagaUsageError, _codec
from steps._dbos import PICKLE


class Pickling:
    """A serializer that keeps everything."""

    def serialize(self, value: Any) -> str:
        return base64.b85encode(pickle.dumps(value)).decode()

    def deserialize(self, data: str) -> Any:
        return pickle.loads(base64.b85decode(data))


class PlainJSON:
    """A serializer that knows no errors."""

    def serialize(self, value: Any) -> str:
        return json.dumps(value)

    def deserialize(self, data: str) -> Any:
        return json.loads(data)


class Texts(PlainJSON):
    """A serializer that makes a text of what it does not know."""

    def serialize(self, value: Any) -> str:
        return json.dumps(value, default=str)


@pytest.fixture(autouse=True)
def pickle_again() -> Iterator[None]:
    yield
    _codec.use(None)


def test_pickle_is_the_default() -> None:
    """Without a serializer values are stored as DBOS stores them."""
    assert _codec.current() is PICKLE
    assert PICKLE.loads(PICKLE.dumps({"a": (1, {2})})) == {"a": (1, {2})}


def test_a_serializer_that_keeps_errors() -> None:
    """A serializer that brings errors back as they were can be used."""
    _codec.use(Pickling())
    codec = _codec.current()
    assert codec is not PICKLE
    back = codec.loads(codec.dumps(ValueError("x")))
    assert (type(back), back.args) == (ValueError, ("x",))


@pytest.mark.parametrize("serializer", [PlainJSON(), Texts()])
def test_a_serializer_that_loses_errors(serializer: Any) -> None:
    """A serializer that cannot store errors is refused: a replay would take another path."""
    with pytest.raises(SagaUsageError, match=type(serializer).__name__):
        _codec.use(serializer)
    assert _codec.current() is PICKLE


def test_back_to_pickle() -> None:
    """The next launch without a serializer uses pickle again."""
    _codec.use(Pickling())
    _codec.use(None)
    assert _codec.current() is PICKLE
