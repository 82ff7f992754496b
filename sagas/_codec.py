"""How values are stored: DBOS's pickle, or the serializer that the configuration names."""

from __future__ import annotations

from typing import Any

from steps._attempts import Codec
from steps._dbos import PICKLE

from ._errors import SagaUsageError


class _Custom:
    """A DBOS serializer."""

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def dumps(self, value: Any) -> Any:
        return self._serializer.serialize(value)

    def loads(self, data: Any) -> Any:
        return self._serializer.deserialize(data)


_codec: Codec = PICKLE


def current() -> Codec:
    """The codec in use."""
    return _codec


def use(serializer: Any) -> None:
    """
    Use a DBOS serializer; None: pickle.

    Raises:
        SagaUsageError: It cannot store errors, so a replay would not see what the live run saw.
    """
    global _codec
    if serializer is None:
        _codec = PICKLE
        return
    custom = _Custom(serializer)
    probe = SagaUsageError("probe")
    try:
        back = custom.loads(custom.dumps(probe))
    except Exception as error:
        back = error
    if type(back) is not SagaUsageError or back.args != probe.args:
        raise SagaUsageError(
            f"The serializer {type(serializer).__name__} cannot store Python errors, which a "
            f"replay needs to take the path that the live run took. Leave `serializer` out of "
            f"the configuration, or use one that can."
        )
    _codec = custom
