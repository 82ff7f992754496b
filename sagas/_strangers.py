"""
Sagas that are this process's by their rows, and that do not run in it.

A worker takes from its queues what there is for its application. Where it has not imported the
module of a saga, DBOS leaves that saga PENDING: it neither runs nor ends, and nobody else takes
it. The same becomes of a saga that a worker took just when its database went away. The catalog of
the application tells which names can be sagas.
"""

from __future__ import annotations

import logging

from . import _catalog, _dbos, _registry, _running
from ._marks import Parked
from ._reaping import not_registered

log = logging.getLogger("sagas")


class Strangers:
    """
    Finds the sagas of this executor that do not run here.

    Those whose code is not here are parked; the others are to be resumed. Either is seen at
    several looks first: a module may be about to be imported, a thread about to begin.

    Args:
        app: The application.
        app_version: Its version: another one's sagas wait for a process of that version.
        executor_id: This process.
        looks: At how many looks in a row a saga must not run here.
    """

    def __init__(self, app: str, app_version: str, executor_id: str, *, looks: int = 2) -> None:
        self._app = app
        self._app_version = app_version
        self._executor = executor_id
        self._looks = looks
        self._seen: dict[tuple[str, int | None], int] = {}

    def look(self) -> list[str]:
        """
        Look once.

        Returns:
            The sagas that are to be resumed.

        Raises:
            SQLAlchemyError, DBOSException: The database does not answer.
        """
        known = set(_registry.names())
        rows = _dbos.outside(
            _dbos.pending_rows,
            sorted(_catalog.published() | known),
            self._app,
            self._app_version,
            executor_id=self._executor,
        )
        seen: dict[tuple[str, int | None], int] = {}
        left: list[str] = []
        for row in rows:
            if _running.of(row.workflow_id) is not None:
                continue
            key = row.workflow_id, row.dequeued_at
            seen[key] = self._seen.get(key, 0) + 1
            if seen[key] < self._looks:
                continue
            if row.name in known:
                left.append(row.workflow_id)
            else:
                self._park(row.workflow_id, row.name)
        self._seen = seen
        return left

    def _park(self, saga_id: str, name: str) -> None:
        reason = not_registered(name)
        log.error("Saga %s is parked: %s", saga_id, reason)
        marks = Parked(reason, _dbos.now()).attributes()
        _dbos.outside(_dbos.mark, saga_id, marks)
        _dbos.outside(_dbos.cancel, saga_id)
