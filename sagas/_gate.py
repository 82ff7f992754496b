"""The way to DBOS for what is asked of one saga from outside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from . import _dbos


class Gate(Protocol):
    """What the verbs need of DBOS."""

    def row(self, saga_id: str) -> Any:
        """DBOS's `WorkflowStatus` without its input; None where there is none."""
        ...

    def steps(self, saga_id: str) -> list[Any]:
        """The recorded steps."""
        ...

    def mark(self, saga_id: str, marks: Mapping[str, Any]) -> None:
        """Merge marks into the attributes."""
        ...

    def dbos_cancel(self, saga_id: str) -> None:
        """Have DBOS cancel the workflow; of no effect once it has ended."""
        ...

    def resume(self, saga_id: str, queue: str | None = None) -> None:
        """Have DBOS run it again from its checkpoints; it keeps its unread messages."""
        ...

    def rewind(self, saga_id: str, start_step: int, application_version: str | None) -> None:
        """
        Have DBOS run an ended one again, without its steps from `start_step` on.

        Raises:
            DBOSError: It is running: of two, one is refused.
        """
        ...

    def send(self, saga_id: str, topic: str, message: Any, idempotency_key: str | None) -> None:
        """Send a message to it."""
        ...

    def latest_version(self, application: str | None) -> str | None:
        """The latest registered version of an application; None where none is known here."""
        ...


class DBOSGate:
    """
    The gate over DBOS itself, in a launched process, or over a client, from any.

    Both have the same methods. In a launched process every call is made as if no workflow were
    running here; to a client that makes no difference.
    """

    def __init__(self, api: _dbos.Api) -> None:
        self._api = api

    def row(self, saga_id: str) -> Any:
        rows = _dbos.outside(self._api.list_workflows, workflow_ids=[saga_id], load_input=False)
        return rows[0] if rows else None

    def steps(self, saga_id: str) -> list[Any]:
        return list(_dbos.outside(self._api.list_workflow_steps, saga_id))

    def mark(self, saga_id: str, marks: Mapping[str, Any]) -> None:
        _dbos.outside(self._api.update_workflow_attributes, saga_id, dict(marks), merge=True)

    def dbos_cancel(self, saga_id: str) -> None:
        _dbos.outside(self._api.cancel_workflow, saga_id)

    def resume(self, saga_id: str, queue: str | None = None) -> None:
        _dbos.outside(self._api.resume_workflow, saga_id, queue_name=queue)

    def rewind(self, saga_id: str, start_step: int, application_version: str | None) -> None:
        _dbos.outside(
            self._api.rewind_workflow,
            saga_id,
            start_step=start_step,
            application_version=application_version,
        )

    def send(self, saga_id: str, topic: str, message: Any, idempotency_key: str | None) -> None:
        _dbos.outside(self._api.send, saga_id, message, topic, idempotency_key=idempotency_key)

    def latest_version(self, application: str | None) -> str | None:
        # Newest first; a client sees those of all applications.
        for version in _dbos.outside(self._api.list_application_versions):
            if version["application_name"] in (application, None):
                return str(version["version_name"])
        return None


def here() -> Gate:
    """The gate of a launched process."""
    return DBOSGate(_dbos.API)
