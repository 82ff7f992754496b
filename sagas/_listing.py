"""Sagas by what they are: the filters of `SagaClient.list`, and its pages."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._errors import SagaUsageError
from ._history import SagaState, saga_state
from ._marks import PREFIX
from ._saga import Saga
from ._status import SagaStatus

PAGE = 500

Names = str | Saga[..., Any] | Iterable[str | Saga[..., Any]]
Statuses = SagaStatus | str | Iterable[SagaStatus | str]

_STOPPED = ["CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
"""DBOS stopped it: it stays so, or is about to be taken up again."""

_DBOS_STATUS: dict[SagaStatus, list[str]] = {
    SagaStatus.STARTED: ["ENQUEUED", "DELAYED"],
    SagaStatus.PENDING: ["PENDING", "ENQUEUED", "DELAYED", *_STOPPED],
    SagaStatus.COMPENSATING: ["PENDING", "ENQUEUED", "DELAYED", *_STOPPED],
    SagaStatus.COMPLETED: ["SUCCESS"],
    SagaStatus.FAILED: ["ERROR", *_STOPPED],
    SagaStatus.PARKED: ["ERROR", *_STOPPED],
    SagaStatus.TERMINATED: ["ERROR", *_STOPPED],
}
"""In which of DBOS's states a saga of each state can be."""

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for; None where it does not matter."""

    statuses: frozenset[SagaStatus] | None = None
    names: tuple[str, ...] | None = None
    since: datetime | None = None
    needs_attention: bool | None = None
    attributes: Mapping[str, Any] | None = None

    def admits(self, state: SagaState) -> bool:
        """Whether a saga is one of those."""
        return (
            (self.statuses is None or state.status in self.statuses)
            and (self.needs_attention is None or state.needs_attention is self.needs_attention)
            and all(
                _same(state.attributes.get(key, _MISSING), value)
                for key, value in (self.attributes or {}).items()
            )
        )

    @property
    def is_left_to_dbos(self) -> bool:
        """Whether every saga that DBOS's query finds is one of those."""
        return self.statuses is None and self.needs_attention is None and not self.attributes

    def dbos_statuses(self) -> list[str] | None:
        """In which of DBOS's states they are."""
        wanted: Collection[SagaStatus] | None = self.statuses
        if wanted is None and self.needs_attention:
            wanted = [s for s in SagaStatus if not s.is_final] + [SagaStatus.PARKED]
        if wanted is None:
            return None
        return sorted({dbos_status for status in wanted for dbos_status in _DBOS_STATUS[status]})

    def query(self, *, by_attributes: bool) -> dict[str, Any]:
        """
        As much of it as DBOS can look for.

        Args:
            by_attributes: Whether its database can look for attributes.
        """
        query: dict[str, Any] = {"status": self.dbos_statuses()}
        if self.since is not None:
            query["start_time"] = self.since.isoformat()
        if self.attributes and by_attributes:
            query["attributes"] = dict(self.attributes)
        return query


def _same(one: Any, other: Any) -> bool:
    if one is _MISSING:
        return False
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def checked_filter(
    status: Any, name: Any, since: Any, needs_attention: Any, attributes: Any
) -> Filter:
    """
    What the arguments of `SagaClient.list` ask for.

    Raises:
        SagaUsageError: They make no sense.
    """
    if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
        raise SagaUsageError(
            f"since must be a datetime with a time zone, as `datetime.now(UTC)` is, not {since!r}."
        )
    if needs_attention is not None and not isinstance(needs_attention, bool):
        raise SagaUsageError(f"needs_attention must be True or False, not {needs_attention!r}.")
    return Filter(_statuses(status), _given_names(name), since, needs_attention, _given(attributes))


def _statuses(status: Any) -> frozenset[SagaStatus] | None:
    if status is None:
        return None
    one = isinstance(status, str)
    try:
        return frozenset(SagaStatus(s) for s in ([status] if one else status))
    except (TypeError, ValueError) as error:
        known = ", ".join(s.value for s in SagaStatus)
        raise SagaUsageError(f"{error}. A saga's status is one of: {known}.") from error


def _given_names(name: Any) -> tuple[str, ...] | None:
    if name is None:
        return None
    several = [name] if isinstance(name, str | Saga) else list(name)
    return tuple(n.name if isinstance(n, Saga) else n for n in several)


def _given(attributes: Any) -> Mapping[str, Any] | None:
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping) or not all(isinstance(k, str) for k in attributes):
        raise SagaUsageError(f"attributes must be a mapping with text keys, not {attributes!r}.")
    ours = next((k for k in attributes if k.startswith(PREFIX)), None)
    if ours is not None:
        raise SagaUsageError(f"The attribute {ours!r} is this library's own; ask for yours.")
    try:
        return dict(json.loads(json.dumps(dict(attributes), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise SagaUsageError(f"attributes must be a JSON object: {error}.") from error


def check_limit(limit: Any) -> None:
    """
    See that a list can be that long.

    Raises:
        SagaUsageError: It cannot.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SagaUsageError(f"limit must be a whole number of 1 or more, not {limit!r}.")


def find(
    client: Any, wanted: Filter, names: list[str], limit: int, *, by_attributes: bool
) -> list[SagaState]:
    """
    Sagas, the newest first, without their steps and results.

    Args:
        client: DBOS's client.
        wanted: Which.
        names: What their sagas are called.
        limit: At most so many.
        by_attributes: Whether its database can look for attributes.
    """
    if not names or wanted.statuses == frozenset():
        return []
    query = {"name": names, **wanted.query(by_attributes=by_attributes)}
    size = min(PAGE, limit) if wanted.is_left_to_dbos else PAGE
    found: dict[str, SagaState] = {}  # sagas started meanwhile shift the pages: none is told twice
    for page in _pages(client, query, size):
        for state in page:
            if wanted.admits(state):
                found.setdefault(state.saga_id, state)
        if len(found) >= limit:
            break
    return list(found.values())[:limit]


def _pages(client: Any, query: Mapping[str, Any], size: int) -> Iterator[list[SagaState]]:
    offset = 0
    while True:
        rows = client.list_workflows(
            **query,
            limit=size,
            offset=offset,
            sort_desc=True,
            load_input=False,
            load_output=False,
        )
        # What ended in an error tells FAILED from PARKED by that error; results may be large.
        ended = [row.workflow_id for row in rows if row.status == "ERROR"]
        if ended:
            full = client.list_workflows(workflow_ids=ended, load_input=False)
            by_id = {row.workflow_id: row for row in full}
            rows = [by_id.get(row.workflow_id, row) for row in rows]
        yield [saga_state(row, loaded=False) for row in rows]
        if len(rows) < size:
            return
        offset += len(rows)
