"""
The names of an application's sagas, kept where every client finds them.

In DBOS's tables a saga is a workflow like any other. So that `SagaClient.list` can tell them apart
without the application's code, each application keeps the names of its sagas as the argument of
one completed workflow.
"""

from __future__ import annotations

import hashlib
import logging
import threading

from . import _dbos

log = logging.getLogger("sagas")

WORKFLOW = "sagas.catalog"

_names: set[str] = set()
_published: tuple[str, ...] | None = None
_app: str | None = None
_lock = threading.Lock()


def catalog(names: list[str]) -> list[str]:
    # DBOS hashes this source into every application's version. Do not touch it.
    return names


_workflow = _dbos.register(catalog, WORKFLOW, None)


def add(name: str) -> None:
    """A saga was defined."""
    _names.add(name)


def names() -> set[str]:
    """The sagas defined in this process."""
    return set(_names)


def publish(app: str | None = None) -> None:
    """
    Keep the names known by now, unless they are kept already.

    Args:
        app: The application's name, at launch.
    """
    global _published, _app
    with _lock:
        _app = app or _app
        current = tuple(sorted(_names))
        if current == _published or not current:
            return
        digest = hashlib.sha256("\x00".join(current).encode()).hexdigest()[:16]
        _dbos.outside(
            _dbos.publish_catalog, _workflow, f"{WORKFLOW}:{_app or 'app'}:{digest}", current
        )
        _published = current


def published() -> set[str]:
    """The names of all sagas that the application has, or had, in any process."""
    return {name for names in _dbos.outside(_dbos.arguments_of, WORKFLOW) for name in names[0]}


def needs_publishing() -> bool:
    """Whether sagas were defined since."""
    return _published is None or len(_published) != len(_names)


def forget() -> None:
    """The process has left the database."""
    global _published, _app
    _published = _app = None
