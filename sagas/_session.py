"""
An executor's name, held by a session of its own on PostgreSQL.

The name is an advisory lock of that session, so the server frees it when the process ends,
however that ends. Neither side waits long for the other: the client gives up a server that does
not answer, the server a client whose machine is gone, after about ten seconds.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("sagas")

ANSWER_WITHIN = 3.0
"""Seconds for the server to answer a query; a session that takes longer is given up."""

EVICTION = 1.0
"""Seconds for the server to end a session of ours that it still takes for alive."""

_CLIENT_SETTINGS = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Of libpq, where the URL does not say otherwise; a Unix socket does without."""

_SERVER_SETTINGS = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_session_timeout": "0",
}
"""Of the session, where this server knows them: a machine that is gone holds no lock for long."""

_HOLDERS = (
    "SELECT (classid::bigint << 32) | objid::bigint AS key, pid FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32) | objid::bigint = ANY(CAST(:keys AS bigint[]))"
)


class Hold(enum.Enum):
    """What has become of a process's hold on its name."""

    HELD = "held"
    """It holds it: still, or again."""
    UNREACHABLE = "unreachable"
    """The database does not answer: nothing is known."""
    TAKEN = "taken"
    """Somebody else holds it."""


def lock_key(app: str, executor_id: str) -> int:
    """The advisory lock's key: 64 bits, signed."""
    digest = hashlib.sha256(f"sagas.executor\x00{app}\x00{executor_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class Session:
    """
    One connection to PostgreSQL.

    Whatever fails in it, give it up: SQLAlchemy would go on with another connection unasked.
    """

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={k: v for k, v in _CLIENT_SETTINGS.items() if k not in url.query},
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._engine.dispose)
            self._connection = self._engine.connect()
            undo.callback(self._connection.close)
            driver: Any = self._connection.connection.driver_connection
            self._socket = socket.socket(fileno=os.dup(driver.fileno()))
            undo.callback(self._socket.close)
            self.ask(
                "SELECT set_config(s.name, w.value, false) FROM pg_settings AS s JOIN "
                "unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS w(name, value) "
                "ON s.name = w.name",
                names=list(_SERVER_SETTINGS),
                values=list(_SERVER_SETTINGS.values()),
            )
            (row,) = self.ask(
                "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            )
            self.pid: int = row.pid
            self.started: Any = row.backend_start
            self._undo = undo.pop_all()

    def ask(self, query: str, **values: Any) -> Sequence[sa.Row[Any]]:
        """The rows that answer `query`."""
        # libpq itself would wait for ever for a server that is frozen.
        watch = threading.Timer(ANSWER_WITHIN, self._hang_up)
        watch.daemon = True
        watch.start()
        try:
            return self._connection.execute(sa.text(query), values).fetchall()
        finally:
            watch.cancel()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # it has hung up itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def try_lock(self, key: int) -> bool:
        """Take an advisory lock, if nobody else has it."""
        return bool(self.ask("SELECT pg_try_advisory_lock(:key)", key=key)[0][0])

    def holders(self, keys: Sequence[int]) -> dict[int, int]:
        """Which sessions hold these advisory locks, by the server's number."""
        return {row.key: row.pid for row in self.ask(_HOLDERS, keys=list(keys))}

    def close(self) -> None:
        """End the session, and with it its locks."""
        self._undo.close()


class SessionLock:
    """
    A held name. Any thread may use it.

    Attributes:
        executor_id: The name.
        since: `time.monotonic()` when the present session took it. A server that restarts frees
            all names at once, so nobody can tell from a free one much earlier than this.
    """

    def __init__(self, session: Session, url: sa.URL, app: str, executor_id: str) -> None:
        self.executor_id = executor_id
        self.since = time.monotonic()
        self._url = url
        self._app = app
        self._guard = threading.RLock()
        self._session: Session | None = session
        self._held = True
        self._last_holder = session
        self._others: set[str] = set()
        self._released = False
        self._introduce(session)

    @property
    def held(self) -> bool:
        """Whether it was held when it was last looked at."""
        return self._held

    def maintain(self) -> Hold:
        """
        See that the name is held; where the session is gone, take it again in a new one.

        To be called every few seconds, by a thread that waits for nothing else: while the session
        is gone others take this process for dead. It takes seconds where the server is silent.
        After `release` the answer is UNREACHABLE.
        """
        with self._guard:
            for _ in range(2):  # the session can be gone while the server is there
                if self._released:
                    break
                try:
                    return self._keep()
                except SQLAlchemyError as error:
                    self._give_up(error)
            return Hold.UNREACHABLE

    def free(self, executor_ids: Collection[str]) -> frozenset[str]:
        """
        Those of these names that nobody holds; none where this process does not hold its own.

        It only looks: a process that is just launching under such a name is not disturbed.

        Raises:
            SQLAlchemyError: The session is gone.
        """
        with self._guard, self._usable() as session:
            if session is None:
                return frozenset()
            own = lock_key(self._app, self.executor_id)
            keys = {lock_key(self._app, e): e for e in executor_ids}
            holders = session.holders([own, *keys])
            self._held = holders.get(own) == session.pid
            if not self._held:
                return frozenset()
            return frozenset(e for key, e in keys.items() if key not in holders)

    @contextlib.contextmanager
    def in_name_of(self, executor_id: str) -> Iterator[bool]:
        """
        Hold another executor's name meanwhile, so that no process can be launched under it.

        Whoever is launched under a name of its choice waits a few seconds for it: be quicker.

        Yields:
            Whether it is held: not where another holds it, be it another thread here, and not
            where this process does not hold its own.

        Raises:
            SQLAlchemyError: The session is gone.
        """
        had = self._take_other(executor_id)
        try:
            yield had
        finally:
            if had:
                self._give_back(executor_id)

    def holds(self, executor_id: str) -> bool:
        """
        Whether the other executor's name is still held.

        Raises:
            SQLAlchemyError: The session is gone.
        """
        with self._guard, self._usable() as session:
            if session is None or executor_id not in self._others:
                return False
            session.ask("SELECT 1")
            return True

    def release(self) -> None:
        """Let another process have the name."""
        with self._guard:
            self._released = True
            self._drop()

    def _keep(self) -> Hold:
        key = lock_key(self._app, self.executor_id)
        session = self._session
        if session is None:
            session = self._session = Session(self._url)
        if session.holders([key]).get(key) == session.pid:
            self._held = True
            return Hold.HELD
        self._held = False
        if not session.try_lock(key):
            ours = self._evict_last(session, key)
            if not ours:
                return Hold.TAKEN
            if not _try_for(session, key, EVICTION):
                return Hold.UNREACHABLE
        self._held = True
        self._last_holder = session
        self.since = time.monotonic()
        self._introduce(session)
        log.warning("Executor %r holds its name again, by a new session.", self.executor_id)
        return Hold.HELD

    def _evict_last(self, session: Session, key: int) -> bool:
        """End the session that held the name for us, if the server takes it for alive."""
        return bool(
            session.ask(
                f"SELECT pg_terminate_backend(a.pid) FROM ({_HOLDERS}) AS l "
                "JOIN pg_stat_activity AS a ON a.pid = l.pid "
                "WHERE a.pid = :pid AND a.backend_start = :started",
                keys=[key],
                pid=self._last_holder.pid,
                started=self._last_holder.started,
            )
        )

    def _introduce(self, session: Session) -> None:
        session.ask(
            "SELECT set_config('application_name', :name, false)",
            name=f"sagas executor {self.executor_id}"[:63],
        )

    @contextlib.contextmanager
    def _usable(self) -> Iterator[Session | None]:
        """The session while the name is held; given up where it fails."""
        try:
            yield self._session if self._held else None
        except SQLAlchemyError as error:
            self._give_up(error)
            raise

    def _take_other(self, executor_id: str) -> bool:
        with self._guard, self._usable() as session:
            # The server would grant a session what it holds already.
            if session is None or executor_id in (self.executor_id, *self._others):
                return False
            if not session.try_lock(lock_key(self._app, executor_id)):
                return False
            self._others.add(executor_id)
            return True

    def _give_back(self, executor_id: str) -> None:
        with self._guard:
            session = self._session
            if session is None or executor_id not in self._others:
                return  # it went with its session
            self._others.discard(executor_id)
            try:
                session.ask("SELECT pg_advisory_unlock(:key)", key=lock_key(self._app, executor_id))
            except SQLAlchemyError as error:
                self._give_up(error)

    def _give_up(self, error: SQLAlchemyError) -> None:
        if self._session is not None:
            cause = str(getattr(error, "orig", None) or error).strip()
            log.warning("Executor %r lost the session of its name: %s", self.executor_id, cause)
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        self._held = False
        self._others.clear()
        if session is not None:
            session.close()


def _try_for(session: Session, key: int, seconds: float) -> bool:
    """Take a lock that is about to become free."""
    deadline = time.monotonic() + seconds
    while not session.try_lock(key):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
