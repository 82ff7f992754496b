"""Where the configuration comes from, and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sagas import SagaUsageError
from sagas._config import check_reachable, check_url, load, safe

POSTGRES = "postgresql://alice:secret@db.example:5432/shop"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty current folder, and no variable of DBOS."""
    for name in list(os.environ):
        if name.startswith("DBOS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes the configuration file of the current folder."""

    def write_file(text: str | bytes, name: str = "dbos-config.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_nothing_at_all() -> None:
    """Without any configuration it is a SQLite file in the current folder."""
    assert load() == {"name": "sagas", "system_database_url": "sqlite:///sagas.sqlite"}


def test_the_name_names_the_file() -> None:
    """The default SQLite file has the application's name."""
    assert load(name="my-shop")["system_database_url"] == "sqlite:///my_shop.sqlite"


def test_a_file_in_the_current_folder(write: Any) -> None:
    """`dbos-config.yaml` is read where nothing is given."""
    write(f"name: shop\nsystem_database_url: {POSTGRES}\n")
    assert load() == {"name": "shop", "system_database_url": POSTGRES}


def test_a_file_by_its_path(write: Any) -> None:
    """A file is read by its path, as text or as a path."""
    path = write("name: other\n", "other.yaml")
    assert load(path)["name"] == "other"
    assert load(str(path))["name"] == "other"


def test_a_mapping_wins_over_the_file(write: Any) -> None:
    """With a mapping the file is not looked at, and the mapping is not changed."""
    write("name: shop\nnonsense: 1\n")
    given = {"name": "given", "system_database_url": POSTGRES}
    assert load(given) == given
    assert load(given, name="argument")["name"] == "argument"
    assert given["name"] == "given"


def test_the_name_given_wins_over_the_files(write: Any) -> None:
    """`launch(name=)` wins over the configuration's name."""
    write("name: shop\n")
    assert load(name="argument")["name"] == "argument"


@pytest.mark.parametrize("config", [None, {"system_database_url": "sqlite:///other.sqlite"}])
def test_the_variable_wins(
    write: Any, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any] | None
) -> None:
    """`DBOS_SYSTEM_DATABASE_URL` wins over the file's database and over the argument's."""
    write("name: shop\nsystem_database_url: sqlite:///file.sqlite\n")
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", POSTGRES)
    assert load(config)["system_database_url"] == POSTGRES


def test_variables_in_the_file(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${NAME}` in the file is the variable's value, or nothing where it is not set."""
    monkeypatch.setenv("SHOP_DATABASE", POSTGRES)
    write("name: shop\nsystem_database_url: ${SHOP_DATABASE}\nexecutor_id: ${SHOP_NOT_SET}\n")
    assert load() == {"name": "shop", "system_database_url": POSTGRES}


def test_sections_of_the_file(write: Any) -> None:
    """What DBOS's own file format has in sections reaches DBOS under its names."""
    write(
        """
        name: shop
        language: python
        executor_id: one
        application_version: "7"
        database:
          sys_db_pool_size: 4
          migrate: [x]
        runtimeConfig:
          max_executor_threads: 3
          start: [python main.py]
        telemetry:
          disable_otlp: false
          logs: {logLevel: DEBUG}
          OTLPExporter: {logsEndpoint: "http://a", tracesEndpoint: ["http://b"]}
        """
    )
    assert load() == {
        "name": "shop",
        "executor_id": "one",
        "application_version": "7",
        "system_database_url": "sqlite:///shop.sqlite",
        "sys_db_pool_size": 4,
        "max_executor_threads": 3,
        "enable_otlp": True,
        "log_level": "DEBUG",
        "otlp_logs_endpoints": ["http://a"],
        "otlp_traces_endpoints": ["http://b"],
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "database:\ntelemetry:\n"])
def test_an_empty_file(write: Any, text: str) -> None:
    """A file without content is no error."""
    write(text)
    assert load()["name"] == "sagas"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "is no YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("name: shop\nsytem_database_url: x\n", "Unknown key 'sytem_database_url'.*Known keys"),
        ("name: shop\n1: x\n", "Unknown key 1"),
        ("name: shop\ndatabase: {pool: 3}\n", "Unknown key 'pool' in section 'database'"),
        ("name: shop\nruntimeConfig: {treads: 3}\n", "Unknown key 'treads'"),
        ("name: shop\ndatabase: many\n", "'database'.*must be a mapping"),
        ("name: shop\ntelemetry: [1]\n", "'telemetry'.*must be a mapping"),
        ("name: shop\ntelemetry: {logs: DEBUG}\n", "logs.*must be a mapping"),
        ("name: shop\ntelemetry: {OTLPExporter: [x]}\n", "OTLPExporter.*must be a mapping"),
        ("name: shop\ntelemetry: {lgos: {}}\n", "Unknown key 'lgos'"),
        (b"name: \xff\xfe\n", "UTF-8|utf-8"),
    ],
)
def test_a_file_that_makes_no_sense(write: Any, text: str | bytes, words: str) -> None:
    """Whatever is wrong with the file, the message names it and the key."""
    write(text)
    with pytest.raises(SagaUsageError, match=words) as e:
        load()
    assert "dbos-config.yaml" in str(e.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that was asked for by path and is missing is an error that names it."""
    with pytest.raises(SagaUsageError, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(SagaUsageError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["ab", "Shop", "my shop", "a" * 257, "", "shop\n", "käse", 123, None]
)
def test_a_bad_name(name: Any) -> None:
    """A name that DBOS would refuse is refused with the rule."""
    with pytest.raises(SagaUsageError, match="3 to 256 lower-case letters"):
        load({"name": name})


@pytest.mark.parametrize("name", ["abc", "my-shop_2", "a" * 256, "007"])
def test_a_good_name(name: str) -> None:
    """Names by the rule are accepted."""
    assert load({"name": name})["name"] == name


@pytest.mark.parametrize(
    "url",
    [
        POSTGRES,
        "postgresql+psycopg://a:b@c/d",
        "postgresql:///shop?host=/tmp",
        "sqlite:///here.sqlite",
        "sqlite://",
        "sqlite:///:memory:",
        "cockroachdb://a@b/c",
    ],
)
def test_a_good_url(url: str) -> None:
    """Every database that DBOS can use is accepted as it is written."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "must be text"),
        (3, "must be text"),
        (b"sqlite:///x", "must be text"),
        ("", "no database URL"),
        ("shop.sqlite", "no database URL"),
        ("postgresql//alice@db/shop", "no database URL"),
        ("postgresql://alice@db:port/shop", "no database URL"),
        ("mysql://a:b@c/d", "not mysql"),
        ("postgres://a:b@c/d", "not postgres"),
        ("http://example.com/x", "not http"),
        ("postgresql://alice@db:5432", "names no database"),
        ("postgresql://alice@db:5432/", "names no database"),
        ("sqlite:///no/such/folder/x.sqlite", "its folder does not exist"),
        ("sqlite:////no/such/folder/x.sqlite", "its folder does not exist"),
    ],
)
def test_a_bad_url(url: Any, words: str) -> None:
    """A URL that DBOS cannot use is refused before anything is connected to."""
    with pytest.raises(SagaUsageError, match=words):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://alice:secret@db:5432",
        "mysql://alice:secret@db/shop",
        "postgresql://alice:secret@db:port/shop",
        "postgresql//alice:secret@db/shop",
    ],
)
def test_no_password_in_a_message(url: str) -> None:
    """A password does not get into an error, and so into a log."""
    with pytest.raises(SagaUsageError) as e:
        check_url(url)
    assert "secret" not in str(e.value)
    assert "secret" not in safe(POSTGRES)


def test_a_sqlite_file_that_is_none(tmp_path: Path) -> None:
    """A file that is no database is refused with its name and the way to mend it."""
    path = tmp_path / "text.sqlite"
    path.write_text("This is no database. " * 100)
    with pytest.raises(SagaUsageError, match=r"text\.sqlite.*cannot be used.*not a database"):
        check_reachable(f"sqlite:///{path}")
    assert path.read_text().startswith("This is no database")


def test_a_sqlite_file_that_is_new(tmp_path: Path) -> None:
    """A file that does not exist yet can be used."""
    check_reachable(f"sqlite:///{tmp_path / 'new.sqlite'}")
    check_reachable("sqlite://")


@pytest.mark.parametrize("config", [3, 3.5, ["name"], {1, 2}])
def test_a_configuration_of_a_wrong_type(config: Any) -> None:
    """What is neither a mapping nor a path is refused."""
    with pytest.raises((SagaUsageError, TypeError)):
        load(config)
