"""The application's versions: which one runs here, in which database, and whom it strands."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from . import _config, _dbos, _registry
from ._errors import SagaUsageError

log = logging.getLogger("sagas")

MOST = 1000
"""How many sagas are looked at."""


def stranded(rows: Iterable[tuple[str | None, str]], version: str) -> dict[str, int]:
    """
    How many sagas each other version has that have not ended. Pure.

    Args:
        rows: Version and state, as DBOS calls it, of sagas.
        version: The version of this process.
    """
    counts = Counter(v for v, _ in rows if v is not None and v != version)
    return dict(sorted(counts.items()))


def warn_of_stranded(app: str) -> None:
    """Log a warning for each other version of `app` that has sagas which have not ended."""
    names = _registry.names()
    if not names:
        return
    rows = _dbos.outside(_dbos.active_rows, names, MOST)
    own = (r for r in rows if r.application_name in (app, None))
    found = stranded(((r.app_version, r.status) for r in own), _dbos.app_version())
    for version, count in found.items():
        log.warning(
            "%s%d sagas of version %r have not ended. This process runs version %r and takes up "
            "none of them: unless one of theirs runs, launch one with "
            "launch(as_version=%r), or bring back their code.",
            "At least " if len(rows) == MOST else "",
            count,
            version,
            _dbos.app_version(),
            version,
        )


def own_version() -> Any:
    """DBOS's record of the version that this process runs; None where DBOS is not launched."""
    try:
        versions = _dbos.API.list_application_versions()
    except _dbos.DBOSError:
        return None
    return next((v for v in versions if v["version_name"] == _dbos.app_version()), None)


def is_in(version: Any, url: str, schema: str | None) -> bool:
    """Whether that record is in this database; False also where it cannot be read."""
    try:
        _config.check_reachable(url, create=False)
        with contextlib.ExitStack() as closing:
            other = _dbos.client(url, schema)
            closing.callback(other.destroy)
            found = other.list_application_versions()
    except (SagaUsageError, *_dbos.UNAVAILABLE):
        return False
    return any(v["version_id"] == version["version_id"] for v in found)
