"""Sagas seen, and controlled, from any process, with or without their code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from . import _catalog, _config, _dbos
from ._errors import SagaNotFoundError, SagaUsageError
from ._gate import DBOSGate
from ._handle import with_in_flight
from ._history import SagaState, StepRecord, saga_state, step_records
from ._listing import Names, Statuses, check_limit, checked_filter, find
from ._marks import Marks
from ._operations import Operations

States = list[SagaState]
Texts = list[str]


class SagaClient(Operations):
    """
    A view of the sagas in a system database, and a hand on them.

    It may be used from several threads, and as a context manager.

    Args:
        database_url: The system database; default: that of `launch` here, else what `launch`
            would take: `DBOS_SYSTEM_DATABASE_URL`, `dbos-config.yaml`.

    Raises:
        SagaUsageError: The database does not answer, or DBOS's tables cannot be read there.
    """

    def __init__(self, database_url: str | None = None) -> None:
        from ._launch import launched

        here = launched()
        if database_url is not None:
            settings: dict[str, Any] = {"system_database_url": _config.check_url(database_url)}
        elif here is not None:
            settings = here.config
        else:
            settings = _config.load()
        url = settings["system_database_url"]
        _config.check_reachable(url, create=False)
        self._client = _dbos.client(
            url, settings.get("dbos_system_schema"), settings.get("serializer")
        )
        self._gate = DBOSGate(self._client)
        self._by_attributes = not url.startswith("sqlite")
        try:
            self._client.list_workflows(limit=1)
        except Exception as error:
            self._client.destroy()
            cause = str(getattr(error, "orig", None) or error).strip()
            raise SagaUsageError(
                f"{_config.safe(url)} answers, but DBOS's tables cannot be read there ({cause}). "
                f"They are made by the first launch(), or by `dbos migrate`."
            ) from error

    def __enter__(self) -> SagaClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.destroy()

    def get(self, saga_id: str) -> SagaState:
        """
        A snapshot of one saga, with its steps.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
        """
        rows = self._client.list_workflows(workflow_ids=[saga_id], load_input=False)
        if not rows:
            raise SagaNotFoundError(f"There is no saga {saga_id!r} in this database.")
        return saga_state(rows[0], self._steps(rows[0]))

    def history(self, saga_id: str) -> tuple[StepRecord, ...]:
        """
        The steps of one saga by ID, with their results, errors, times and undos.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
        """
        rows = self._client.list_workflows(
            workflow_ids=[saga_id], load_input=False, load_output=False
        )
        if not rows:
            raise SagaNotFoundError(f"There is no saga {saga_id!r} in this database.")
        return self._steps(rows[0])

    def _steps(self, row: Any) -> tuple[StepRecord, ...]:
        steps = self._client.list_workflow_steps(row.workflow_id)
        return with_in_flight(row.workflow_id, step_records(steps, Marks.parse(row.attributes)))

    def list(
        self,
        *,
        status: Statuses | None = None,
        name: Names | None = None,
        since: datetime | None = None,
        needs_attention: bool | None = None,
        attributes: Mapping[str, Any] | None = None,
        limit: int = 100,
    ) -> States:
        """
        Sagas, the newest first, without their steps and results.

        Args:
            status: Only those in this state, or one of these.
            name: Only runs of this saga, or of these; a name or the saga itself.
            since: Only those created at this moment or later; it has a time zone.
            needs_attention: Only those that a person has to look at (PARKED, or failing again
                and again), or, where False, only the others.
            attributes: Only those to which the application attached these, each with this very
                value. PostgreSQL looks them up by an index; SQLite's sagas are read through.
            limit: At most so many.

        Raises:
            SagaUsageError: There is no such status, or the limit is no positive number, or
                another argument makes no sense.
        """
        check_limit(limit)
        wanted = checked_filter(status, name, since, needs_attention, attributes)
        names = self._known_names() if wanted.names is None else [*wanted.names]
        return find(self._client, wanted, names, limit, by_attributes=self._by_attributes)

    def _known_names(self) -> Texts:
        names = _catalog.names()
        for row in self._client.list_workflows(name=_catalog.WORKFLOW, load_output=False):
            if row.input is not None and row.input["args"]:
                names |= set(row.input["args"][0])
        return sorted(names)

    async def get_async(self, saga_id: str) -> SagaState:
        """`get`, for use on an event loop."""
        return await asyncio.to_thread(self.get, saga_id)

    async def history_async(self, saga_id: str) -> tuple[StepRecord, ...]:
        """`history`, for use on an event loop."""
        return await asyncio.to_thread(self.history, saga_id)

    async def list_async(
        self,
        *,
        status: Statuses | None = None,
        name: Names | None = None,
        since: datetime | None = None,
        needs_attention: bool | None = None,
        attributes: Mapping[str, Any] | None = None,
        limit: int = 100,
    ) -> States:
        """`list`, for use on an event loop."""
        return await asyncio.to_thread(
            self.list,
            status=status,
            name=name,
            since=since,
            needs_attention=needs_attention,
            attributes=attributes,
            limit=limit,
        )
