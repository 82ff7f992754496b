"""Looking at sagas from any process, with or without their code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from . import _catalog, _config, _dbos
from ._errors import SagaNotFoundError, SagaUsageError
from ._handle import with_in_flight
from ._history import SagaState, StepRecord, saga_state, step_records
from ._saga import Saga
from ._status import SagaStatus

PAGE = 500

_DBOS_STATUS: dict[SagaStatus, list[str]] = {
    SagaStatus.STARTED: ["ENQUEUED", "DELAYED"],
    SagaStatus.PENDING: ["PENDING", "ENQUEUED", "DELAYED"],
    SagaStatus.COMPENSATING: ["PENDING", "ENQUEUED", "DELAYED"],
    SagaStatus.COMPLETED: ["SUCCESS"],
    SagaStatus.FAILED: ["ERROR"],
    SagaStatus.PARKED: ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
    SagaStatus.TERMINATED: ["ERROR", "CANCELLED"],
}
"""In which of DBOS's states a saga of each state can be."""

States = list[SagaState]
Texts = list[str]
Names = str | Saga[..., Any] | Iterable[str | Saga[..., Any]]


class SagaClient:
    """
    A view of the sagas in a system database.

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
        self._client = _dbos.client(url, settings.get("dbos_system_schema"))
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
        rows = self._client.list_workflows(workflow_ids=[saga_id])
        if not rows:
            raise SagaNotFoundError(f"There is no saga {saga_id!r} in this database.")
        return saga_state(rows[0], self.history(saga_id))

    def history(self, saga_id: str) -> tuple[StepRecord, ...]:
        """
        The steps of one saga by ID, with their results, errors, times and undos.

        Raises:
            SagaNotFoundError: There is no saga of this ID.
        """
        rows = self._client.list_workflow_steps(saga_id)
        if not rows and not self._client.list_workflows(
            workflow_ids=[saga_id], load_input=False, load_output=False
        ):
            raise SagaNotFoundError(f"There is no saga {saga_id!r} in this database.")
        return with_in_flight(saga_id, step_records(rows))

    def list(
        self,
        *,
        status: SagaStatus | str | Iterable[SagaStatus | str] | None = None,
        name: Names | None = None,
        limit: int = 100,
    ) -> States:
        """
        Sagas, the newest first, without their steps and results.

        Args:
            status: Only those in this state, or one of these.
            name: Only runs of this saga, or of these; a name or the saga itself.
            limit: At most so many.

        Raises:
            SagaUsageError: There is no such status, or the limit is no positive number.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise SagaUsageError(f"limit must be a whole number of 1 or more, not {limit!r}.")
        wanted = _statuses(status)
        names = self._known_names() if name is None else _given_names(name)
        if not names or (wanted is not None and not wanted):
            return []
        found: States = []
        offset = 0
        while len(found) < limit:
            page = self._page(names, wanted, min(PAGE, limit) if wanted is None else PAGE, offset)
            # Sagas that were started meanwhile shift the pages: none is to be told twice.
            known = {s.saga_id for s in found}
            found += [
                s for s in page if s.saga_id not in known and (wanted is None or s.status in wanted)
            ]
            offset += len(page)
            if len(page) < (min(PAGE, limit) if wanted is None else PAGE):
                break
        return found[:limit]

    def _page(self, names: Texts, wanted: set[SagaStatus] | None, size: int, offset: int) -> States:
        dbos_status = (
            None if wanted is None else sorted({d for s in wanted for d in _DBOS_STATUS[s]})
        )
        rows = self._client.list_workflows(
            name=names,
            status=dbos_status,
            limit=size,
            offset=offset,
            sort_desc=True,
            load_input=False,
            load_output=False,
        )
        # What ended in an error tells FAILED from PARKED by that error; results may be large.
        ended = [row.workflow_id for row in rows if row.status == "ERROR"]
        if ended:
            full = self._client.list_workflows(workflow_ids=ended, load_input=False)
            by_id = {row.workflow_id: row for row in full}
            rows = [by_id.get(row.workflow_id, row) for row in rows]
        return [saga_state(row, loaded=False) for row in rows]

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
        status: SagaStatus | str | Iterable[SagaStatus | str] | None = None,
        name: Names | None = None,
        limit: int = 100,
    ) -> States:
        """`list`, for use on an event loop."""
        return await asyncio.to_thread(self.list, status=status, name=name, limit=limit)


def _statuses(status: Any) -> set[SagaStatus] | None:
    if status is None:
        return None
    one = isinstance(status, str)
    try:
        return {SagaStatus(s) for s in ([status] if one else status)}
    except ValueError as error:
        known = ", ".join(s.value for s in SagaStatus)
        raise SagaUsageError(f"{error}. A saga's status is one of: {known}.") from error


def _given_names(name: Any) -> Texts:
    several = [name] if isinstance(name, str | Saga) else list(name)
    return [n.name if isinstance(n, Saga) else n for n in several]
