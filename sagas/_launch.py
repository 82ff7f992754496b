"""Starting and stopping: `launch`, `shutdown`."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any

from steps._mode import alarm
from steps._names import check_name
from steps._policy import Seconds, seconds

from . import (
    _catalog,
    _codec,
    _config,
    _dbos,
    _kept,
    _lock,
    _pool,
    _registry,
    _running,
    _settings,
    _versions,
)
from ._errors import SagaUsageError
from ._failover import Failover
from ._keeper import Keeper, keeper_of
from ._session import SessionLock
from ._settings import Supervision
from ._strangers import Strangers
from ._supervisor import Supervisor

log = logging.getLogger("sagas")

_guard = threading.RLock()

SQLITE_POLLING = 0.5
"""Seconds between two looks of DBOS for messages where nothing tells it of them: on SQLite."""


class Launched:
    """
    A running application; what `launch` returns. As a context manager it ends with the block.

    Attributes:
        config: The configuration that DBOS was given.
    """

    def __init__(
        self, config: dict[str, Any], lock: _lock.ExecutorLock | None, watch: _Watch
    ) -> None:
        self.config = config
        self._lock = lock
        self._watch = watch

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutdown()

    def close(self) -> None:
        """Look after the sagas no longer."""
        self._watch.stop()

    def release(self) -> None:
        """Give up the executor's name."""
        if self._lock is not None:
            self._lock.release()


_current: Launched | None = None


def launched() -> Launched | None:
    """The application that `launch` started here."""
    return _current


def launch(
    config: _config.Config = None,
    *,
    name: str | None = None,
    executor_id: str | None = None,
    as_version: str | None = None,
    supervision: Supervision | None = None,
) -> Launched:
    """
    Start DBOS, and resume what was interrupted.

    Call it once, after every module with sagas has been imported: sagas that are not known by
    then cannot be resumed.

    Args:
        config: A `DBOSConfig` mapping, or the path of a file; default: `dbos-config.yaml` in the
            current folder. The variable `DBOS_SYSTEM_DATABASE_URL` wins over its database;
            without either that is a SQLite file with the application's name.
        name: The application's name; wins over the configuration's.
        executor_id: This process among those of the application, the same after each restart:
            it sees to it that what an executor of this name began is resumed, by this process or
            another one of the same application and version. Default: the configuration's, else
            `DBOS__VMID`, else, on PostgreSQL, the first of "local", "local-2", "local-3", ...
            that no process has; "local" on SQLite.
        as_version: Run as this version of the application, to take up its sagas with the code of
            today: those that an older deployment left behind. The latest version stays what it
            is. Default: the configuration's `application_version`, else a hash of the source.
        supervision: How running sagas are looked after.

    Returns:
        The running application: `with launch(): ...` shuts it down at the end of the block.

    Raises:
        SagaUsageError: The configuration is wrong, the database does not answer, another process
            runs under this `executor_id`, or this process is launched already.
    """
    global _current
    with _guard:
        if _current is not None:
            raise SagaUsageError("launch() was called twice; call shutdown() in between.")
        settings = _config.load(config, name=name)
        unknown = sorted(set(settings) - _dbos.CONFIG_KEYS)
        if unknown:
            raise SagaUsageError(
                f"Unknown key {unknown[0]!r} in the configuration. DBOSConfig has: "
                f"{', '.join(sorted(_dbos.CONFIG_KEYS))}."
            )
        if executor_id is not None:
            settings["executor_id"] = executor_id
        if settings.get("executor_id") is not None:
            check_name(settings["executor_id"], "executor_id", SagaUsageError)
        if as_version is not None:
            settings["application_version"] = check_name(as_version, "as_version", SagaUsageError)
        if supervision is not None and not isinstance(supervision, Supervision):
            raise SagaUsageError(f"supervision takes a Supervision, not {supervision!r}.")
        _settings.use(supervision)
        _codec.use(settings.get("serializer"))
        _current = _start(settings)
        return _current


def _start(settings: dict[str, Any]) -> Launched:
    url = settings.get("system_database_url")
    if url is not None:
        _config.check_reachable(url)
    held = None
    if url is not None and not settings.get("conductor_key"):  # which names executors itself
        held = _lock.acquire(url, settings["name"], _dbos.named_executor(settings))
        if held is not None:
            settings["executor_id"] = held.executor_id
    if url is not None and url.startswith("sqlite"):
        _config.use_write_ahead_log(url)
        settings.setdefault("notification_listener_polling_interval_sec", SQLITE_POLLING)
    _pool.limit(settings.get("max_executor_threads"))
    try:
        _dbos.launch(settings)
        _catalog.publish(settings["name"])
        watch = _watch(settings, held)
    except BaseException as error:
        _dbos.destroy()
        if held is not None:
            held.release()
        if isinstance(error, Exception) and not isinstance(error, SagaUsageError):
            raise SagaUsageError(f"DBOS could not be started: {error}") from error
        raise
    return Launched(settings, held, watch)


class _Watch:
    """The threads that look after the sagas of this process."""

    def __init__(self, supervisor: Supervisor, keeper: Keeper | None) -> None:
        self._supervisor = supervisor
        self._keeper = keeper

    def stop(self) -> None:
        self._supervisor.stop()
        if self._keeper is not None:
            self._keeper.stop()


def _watch(settings: dict[str, Any], held: _lock.ExecutorLock | None) -> _Watch:
    _versions.warn_of_stranded()
    patience = _settings.failover()
    failover = None
    if isinstance(held, SessionLock) and patience is not None:
        failover = Failover(
            held,
            settings["name"],
            _dbos.app_version(),
            _registry.names,
            max_takeovers=_registry.most_takeovers,
            patience=patience,
        )
    keeper = keeper_of(
        held,
        lost=lambda: _running.fence_all("another process has taken this one's name"),
        regained=lambda: supervisor.doubt(),  # noqa: PLW0108 - it is made below
    )
    supervisor = Supervisor(
        _dbos.executor_id(),
        by_attributes=(settings.get("system_database_url") or "").startswith("postgres"),
        holds=lambda: keeper is None or keeper.holds,
        failover=failover,
        strangers=Strangers(settings["name"], _dbos.app_version(), _dbos.executor_id()),
    )
    supervisor.start()
    if keeper is not None:
        keeper.start()
    return _Watch(supervisor, keeper)


def shutdown(*, timeout: Seconds = 0) -> None:
    """
    Stop: no saga begins another step here. What is not done goes on at the next `launch`.

    Args:
        timeout: Seconds (or a `timedelta`) to let running sagas come to their end first.

    Durability:
        Nothing is lost. A step whose body is running when the process ends is run again, under
        the same `idempotency_key()`.

    Raises:
        SagaUsageError: `timeout` is no span of time.
    """
    global _current
    patience = seconds(timeout, "timeout", zero=True, error=SagaUsageError)
    with _guard:
        if _current is None:
            return
        deadline = time.monotonic() + patience
        while _running.count() and time.monotonic() < deadline:
            time.sleep(0.02)
        _current.close()
        alarm.ring()
        _running.wake_all()
        _pool.close()
        try:
            _dbos.destroy()
        finally:
            alarm.reset()
            _current.release()
            _current = None
            _catalog.forget()
            _kept.forget_all()
