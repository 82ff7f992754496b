"""
Sagas that were handed to a process which does not have their code.

A worker takes from its queues what there is for its application. Where it has not imported the
module of a saga, DBOS leaves that saga PENDING: it neither runs nor ends, and nobody else takes
it. The catalog of the application tells which names those can be.
"""

from __future__ import annotations

import logging

from . import _catalog, _dbos, _registry
from ._marks import Parked
from ._reaping import not_registered

log = logging.getLogger("sagas")


class Strangers:
    """
    Parks the sagas that wait in this process for code that it does not have.

    Args:
        app: The application.
        app_version: Its version: another one's sagas wait for a process of that version.
        executor_id: This process.
    """

    def __init__(self, app: str, app_version: str, executor_id: str) -> None:
        self._app = app
        self._app_version = app_version
        self._executor = executor_id
        self._seen: set[str] = set()

    def look(self) -> None:
        """
        Look once; what is there at two looks is parked: its module may be about to be imported.

        Raises:
            SQLAlchemyError, DBOSException: The database does not answer.
        """
        unknown = _catalog.published() - set(_registry.names())
        rows = _dbos.outside(
            _dbos.pending_rows,
            sorted(unknown),
            self._app,
            self._app_version,
            executor_id=self._executor,
        )
        for row in rows:
            if row.workflow_id in self._seen:
                reason = not_registered(row.name)
                log.error("Saga %s is parked: %s", row.workflow_id, reason)
                marks = Parked(reason, _dbos.now()).attributes()
                _dbos.outside(_dbos.mark, row.workflow_id, marks)
                _dbos.outside(_dbos.cancel, row.workflow_id)
        self._seen = {row.workflow_id for row in rows}
