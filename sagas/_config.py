"""Where the configuration comes from, and what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ._errors import SagaUsageError

DEFAULT_FILE = "dbos-config.yaml"
DATABASE_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
DEFAULT_NAME = "sagas"

Config = Mapping[str, Any] | str | os.PathLike[str] | None

_SECTIONS: dict[str, dict[str, str]] = {
    "database": {
        "sys_db_pool_size": "sys_db_pool_size",
        "sys_db_polling_concurrency": "sys_db_polling_concurrency",
        "db_engine_kwargs": "db_engine_kwargs",
        "sys_db_engine_kwargs": "db_engine_kwargs",
        "sys_db_idle_transaction_timeout_sec": "sys_db_idle_transaction_timeout_sec",
        "migrate": "",
    },
    "runtimeConfig": {
        "start": "",
        "setup": "",
        "max_executor_threads": "max_executor_threads",
        "notification_listener_polling_interval_sec": "notification_listener_polling_interval_sec",
        "notification_coalesce_sec": "notification_coalesce_sec",
        "observability_query_timeout_sec": "observability_query_timeout_sec",
        "scheduler_polling_interval_sec": "scheduler_polling_interval_sec",
        "kafka_queue_polling_interval_sec": "kafka_queue_polling_interval_sec",
        "auto_upgrade_interval_sec": "auto_upgrade_interval_sec",
        "auto_upgrade_grace_sec": "auto_upgrade_grace_sec",
    },
}
"""Keys of DBOS's file by section; to a key of `DBOSConfig`, or '' for what DBOS's CLI uses."""

_TOP = ("name", "system_database_url", "dbos_system_schema", "use_listen_notify", "run_migrations")
_ALSO_TOP = ("application_version", "executor_id")
_IGNORED = ("language", "$schema")


_TELEMETRY_KEYS = (
    "OTLPExporter",
    "disable_otlp",
    "logs",
    "otel_attribute_format",
    "otlp_attributes",
)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SagaUsageError(f"The configuration {str(path)!r} cannot be read: {error}.") from error
    # As DBOS does: a variable that is not set is empty.
    text = re.sub(r"\$\{([^}]+)\}", lambda m: os.environ.get(m[1], ""), text)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SagaUsageError(f"The configuration {str(path)!r} is no YAML: {error}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SagaUsageError(
            f"The configuration {str(path)!r} must be a mapping of keys to values, not "
            f"{type(data).__name__}."
        )
    return data


def _translate(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, value in data.items():
        if key in _TOP or key in _ALSO_TOP:
            if value not in (None, ""):
                config[key] = value
        elif key in _SECTIONS:
            config |= _translate_section(key, value, where)
        elif key == "telemetry":
            config |= _translate_telemetry(value or {}, where)
        elif key not in _IGNORED:
            known = ", ".join(sorted((*_TOP, *_ALSO_TOP, *_SECTIONS, "telemetry")))
            raise SagaUsageError(f"Unknown key {key!r} in {where}. Known keys: {known}.")
    return config


def _translate_section(section: str, values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values or {}, Mapping):
        raise SagaUsageError(f"{section!r} in {where} must be a mapping, not {values!r}.")
    config = {}
    for key, value in (values or {}).items():
        target = _SECTIONS[section].get(key)
        if target is None:
            known = ", ".join(sorted(_SECTIONS[section]))
            raise SagaUsageError(
                f"Unknown key {key!r} in section {section!r} of {where}. Known keys: {known}."
            )
        if target and value is not None:
            config[target] = value
    return config


def _translate_telemetry(telemetry: Any, where: str) -> dict[str, Any]:
    if not isinstance(telemetry, Mapping):
        raise SagaUsageError(f"'telemetry' in {where} must be a mapping, not {telemetry!r}.")
    unknown = sorted(set(telemetry) - set(_TELEMETRY_KEYS))
    if unknown:
        raise SagaUsageError(
            f"Unknown key {unknown[0]!r} in section 'telemetry' of {where}. Known keys: "
            f"{', '.join(_TELEMETRY_KEYS)}."
        )
    config: dict[str, Any] = {}
    logs = telemetry.get("logs") or {}
    exporter = telemetry.get("OTLPExporter") or {}
    for part, values in (("logs", logs), ("OTLPExporter", exporter)):
        if not isinstance(values, Mapping):
            raise SagaUsageError(
                f"'{part}' in section 'telemetry' of {where} must be a mapping, not {values!r}."
            )
    for source, key, target in (
        (logs, "logLevel", "log_level"),
        (logs, "consoleLogLevel", "console_log_level"),
        (logs, "otlpLogLevel", "otlp_log_level"),
        (exporter, "logsEndpoint", "otlp_logs_endpoints"),
        (exporter, "tracesEndpoint", "otlp_traces_endpoints"),
        (telemetry, "otlp_attributes", "otlp_attributes"),
        (telemetry, "otel_attribute_format", "otel_attribute_format"),
    ):
        value = source.get(key)
        if value is not None:
            one = target.endswith("endpoints") and isinstance(value, str)
            config[target] = [value] if one else value
    if "disable_otlp" in telemetry:
        config["enable_otlp"] = not telemetry["disable_otlp"]
    return config


def load(config: Config = None, *, name: str | None = None) -> dict[str, Any]:
    """
    The configuration for DBOS.

    Args:
        config: A `DBOSConfig`, or the path of a file; None: `dbos-config.yaml` in the current
            folder, if there is one.
        name: The application's name; it wins over the configuration's.

    Returns:
        A `DBOSConfig`. `DBOS_SYSTEM_DATABASE_URL` wins over its database; without either it is a
        SQLite file with the application's name.

    Raises:
        SagaUsageError: It cannot be read, or makes no sense.
    """
    if isinstance(config, Mapping):
        result = dict(config)
    elif config is not None:
        result = _translate(_read(Path(config)), f"{os.fspath(config)!r}")
    elif Path(DEFAULT_FILE).exists():
        result = _translate(_read(Path(DEFAULT_FILE)), repr(DEFAULT_FILE))
    else:
        result = {}
    if name is not None:
        result["name"] = name
    result.setdefault("name", DEFAULT_NAME)
    _check_name(result["name"])
    url = os.environ.get(DATABASE_VARIABLE) or result.get("system_database_url")
    if result.get("system_database_engine") is None or url:
        result["system_database_url"] = check_url(
            url or f"sqlite:///{result['name'].replace('-', '_')}.sqlite"
        )
    return result


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_-]{3,256}", name):
        raise SagaUsageError(
            f"The application's name must be 3 to 256 lower-case letters, digits, '-' or '_', "
            f"not {name!r}."
        )


def check_url(url: Any) -> str:
    """
    `url`, if it names a database that DBOS can use.

    Raises:
        SagaUsageError: It does not.
    """
    shape = "Use postgresql://user:password@host:port/database or sqlite:///path."
    if not isinstance(url, str):
        raise SagaUsageError(f"The system database's URL must be text, not {url!r}. {shape}")
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password, and so may the error's.
        raise SagaUsageError(
            f"What is given for the system database is no database URL. {shape}"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in ("postgresql", "sqlite", "cockroachdb"):
        raise SagaUsageError(f"DBOS stores sagas in PostgreSQL or SQLite, not {backend}. {shape}")
    if backend != "sqlite" and not parsed.database:
        raise SagaUsageError(f"The URL {safe(url)} names no database. {shape}")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        folder = Path(parsed.database).absolute().parent
        if not folder.is_dir():
            raise SagaUsageError(
                f"The SQLite file {parsed.database!r} cannot be made: its folder does not exist."
            )
    return url


def safe(url: str) -> str:
    """`url` without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


def check_reachable(url: str, timeout: float = 5.0, *, create: bool = True) -> bool:
    """
    See that the database answers.

    Args:
        url: A database URL.
        timeout: Seconds to wait for PostgreSQL.
        create: Whether one that does not exist yet will do.

    Returns:
        Whether it exists; a SQLite file that did not is made.

    Raises:
        SagaUsageError: It does not, or is something else.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not create and parsed.database and not Path(parsed.database).exists():
            raise SagaUsageError(
                f"There is no SQLite file {parsed.database!r}. It is made by the first launch()."
            )
        arguments: dict[str, Any] = {}
        statement = "SELECT count(*) FROM sqlite_master"
    else:
        parsed = parsed.set(drivername="postgresql+psycopg")
        arguments = {} if "connect_timeout" in parsed.query else {"connect_timeout": int(timeout)}
        statement = "SELECT 1"
    engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=arguments)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(statement))
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        if create and "does not exist" in cause and "database" in cause:
            return False
        raise SagaUsageError(
            f"The system database {safe(url)} cannot be used: {cause}. See that it is running "
            f"and that the URL is right ({DATABASE_VARIABLE}, or system_database_url in the "
            f"configuration)."
        ) from error
    finally:
        engine.dispose()
    return True


def use_write_ahead_log(url: str) -> None:
    """
    Have a SQLite file keep a write-ahead log: about half as much time for each checkpoint.

    It stays in that mode, and is as durable as before (`synchronous` stays FULL). Where the file
    system has no shared memory SQLite declines, and nothing changes.
    """
    path = sa.make_url(url).database
    if not url.startswith("sqlite") or not path or path == ":memory:":
        return
    with (
        contextlib.closing(sqlite3.connect(path, timeout=5)) as connection,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        connection.execute("PRAGMA journal_mode=WAL")
