"""Starting and stopping: `launch`, `supervise`, `shutdown`."""

from __future__ import annotations

import asyncio
import functools
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
from ._settings import Supervision
from ._watch import Watch, watch

_guard = threading.RLock()

SQLITE_POLLING = 0.5
"""Seconds between two looks of DBOS for messages where nothing tells it of them: on SQLite."""


class Launched:
    """
    A running application; what `launch` and `supervise` return.

    As a context manager it ends with the block, as by `shutdown()`.

    Attributes:
        config: The configuration that DBOS was given.
    """

    def __init__(
        self,
        config: dict[str, Any],
        lock: _lock.ExecutorLock | None,
        watch: Watch,
        *,
        has_launched_dbos: bool = True,
    ) -> None:
        self.config = config
        self._lock = lock
        self._watch = watch
        self._has_launched_dbos = has_launched_dbos

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutdown()

    def end(self) -> None:
        """Look after the sagas no longer, stop DBOS if it is ours, and give up the name."""
        self._watch.stop()
        try:
            if self._has_launched_dbos:
                _stop_dbos()
        finally:
            if self._lock is not None:
                self._lock.release()


def _stop_dbos() -> None:
    alarm.ring()
    _running.wake_all()
    _pool.close()
    try:
        _dbos.destroy()
    finally:
        alarm.reset()


_current: Launched | None = None


def launched() -> Launched | None:
    """The application that `launch` or `supervise` looks after here."""
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
        if _pool.off_loop(_versions.own_version) is not None:
            raise SagaUsageError(
                "DBOS is launched already, by the application itself. Call supervise() in place "
                "of launch(), or leave launching DBOS to launch()."
            )
        settings = _config.load(config, name=name)
        _check_keys(settings)
        if executor_id is not None:
            settings["executor_id"] = executor_id
        if settings.get("executor_id") is not None:
            check_name(settings["executor_id"], "executor_id", SagaUsageError)
        if as_version is not None:
            settings["application_version"] = check_name(as_version, "as_version", SagaUsageError)
        _check_supervision(supervision)
        _settings.use(supervision)
        _codec.use(settings.get("serializer"))
        _current = _start(settings)
        return _current


def _check_keys(settings: dict[str, Any]) -> None:
    unknown = sorted(set(settings) - _dbos.CONFIG_KEYS)
    if unknown:
        raise SagaUsageError(
            f"Unknown key {unknown[0]!r} in the configuration. DBOSConfig has: "
            f"{', '.join(sorted(_dbos.CONFIG_KEYS))}."
        )


def _check_supervision(supervision: Any) -> None:
    if supervision is not None and not isinstance(supervision, Supervision):
        raise SagaUsageError(f"supervision takes a Supervision, not {supervision!r}.")


def _start(settings: dict[str, Any]) -> Launched:
    url = settings.get("system_database_url")
    if url is not None and not _config.check_reachable(url):
        _make_database(url, settings)
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
        return Launched(settings, held, watch(settings["name"], url, held))
    except BaseException as error:
        _dbos.destroy()
        if held is not None:
            held.release()
        if isinstance(error, Exception) and not isinstance(error, SagaUsageError):
            raise SagaUsageError(f"DBOS could not be started: {error}") from error
        raise


def _make_database(url: str, settings: dict[str, Any]) -> None:
    """Make a database, which DBOS would do later: the lock needs it first."""
    if not settings.get("run_migrations", True):
        return
    try:
        _dbos.make_database(url, schema=settings.get("dbos_system_schema") or "dbos")
    except Exception as error:
        raise SagaUsageError(
            f"The database {_config.safe(url)} does not exist, and cannot be made: {error}"
        ) from error


def supervise(supervision: Supervision | None = None, *, config: _config.Config = None) -> Launched:
    """
    Look after the sagas of this process, where the application launches DBOS itself.

    Call it once, after `DBOS.launch()`. Without it sagas run, and are undone when they fail; but
    nobody sees to those that DBOS has cancelled, and requests from other processes wait until the
    saga is resumed. `shutdown()` ends it, and leaves DBOS alone; end it before `DBOS.destroy()`.

    On a server it takes the name of this process's executor, as `launch` does, so that the others
    see that it lives, and takes over from those that are gone. DBOS does not tell which database
    it uses; so it has to be found as `launch` would find it, and is compared with DBOS's.

    Args:
        supervision: How running sagas are looked after.
        config: What DBOS was given: the `DBOSConfig`, or the path of a file; default:
            `dbos-config.yaml` in the current folder. `DBOS_SYSTEM_DATABASE_URL` wins over its
            database.

    Returns:
        What is looked after: `with supervise(): ...` ends it with the block.

    Raises:
        SagaUsageError: DBOS is not launched, `launch` or `supervise` was called already, the
            configuration does not name the database that DBOS uses, or another process runs
            under this executor's name (give each its own: `executor_id` in DBOS's configuration).
    """
    global _current
    with _guard:
        if _current is not None:
            raise SagaUsageError(
                "The sagas of this process are supervised already, by launch() or supervise(); "
                "call shutdown() in between."
            )
        own = _pool.off_loop(_versions.own_version)
        if own is None:
            raise SagaUsageError(
                "supervise() was called before DBOS.launch(). launch() does both: use it in their "
                "place, or call DBOS.launch() first."
            )
        settings = _config.load(config)
        _check_keys(settings)
        _check_supervision(supervision)
        _settings.use(supervision)
        _current = _join(settings, own)
        return _current


def _join(settings: dict[str, Any], own: Any) -> Launched:
    url = settings.get("system_database_url")
    if url is None or not _pool.off_loop(
        _versions.is_in, own, url, settings.get("dbos_system_schema")
    ):
        where = "a system_database_engine" if url is None else _config.safe(url)
        raise SagaUsageError(
            f"supervise() was told of {where}, and DBOS uses another database. Give it the "
            f"configuration that DBOS has: supervise(config=...), with its system_database_url."
        )
    settings["name"] = own["application_name"] or settings["name"]
    settings["executor_id"] = _dbos.executor_id()
    held = None
    if not settings.get("conductor_key"):
        held = _lock.acquire(url, settings["name"], settings["executor_id"])
    try:
        _catalog.publish(settings["name"])
        return Launched(settings, held, watch(settings["name"], url, held), has_launched_dbos=False)
    except BaseException:
        if held is not None:
            held.release()
        raise


def shutdown(*, timeout: Seconds = 0) -> None:
    """
    Stop: no saga begins another step here. What is not done goes on at the next `launch`.

    After `supervise` it ends the supervision only: DBOS is the application's, and sagas run on.

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
        _let_end(_current.config["name"], time.monotonic() + patience)
        try:
            _current.end()
        finally:
            _current = None
            _catalog.forget()
            _kept.forget_all()


def _let_end(app: str, deadline: float) -> None:
    """Wait until DBOS has recorded what became of the sagas that run here."""
    look = 0.02
    while time.monotonic() < deadline and (_running.count() or _pool.off_loop(_runs_any, app)):
        time.sleep(look)
        look = min(look * 1.5, 0.25)


def _runs_any(app: str) -> bool:
    """Whether a saga is this process's by its row: begun in a moment, or ended just now."""
    names, version = _registry.names(), _dbos.app_version()
    found = _dbos.pending_rows(names, app, version, executor_id=_dbos.executor_id(), limit=1)
    return bool(found)


async def shutdown_async(*, timeout: Seconds = 0) -> None:
    """`shutdown`, for use on an event loop: the sagas that run on it can come to their end."""
    await asyncio.to_thread(functools.partial(shutdown, timeout=timeout))
