"""Whatever is wrong is told at the definition or before the start, and nothing is written."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

import sagas
from sagas import (
    SagaClient,
    SagaDefinitionError,
    SagaFailedError,
    SagaHandle,
    SagaNotFoundError,
    SagaUsageError,
    add_compensation,
    current,
    saga,
)
from steps import StepDefinitionError, idempotency_key, step
from tests.support.labels import label

LOG: list[Any] = []
NAN = float("nan")


@pytest.fixture
def backend() -> str:
    """What is wrong here is wrong on every database."""
    return "sqlite"


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


@pytest.fixture
def unwritten(app: sagas.Launched) -> Iterator[None]:
    """An application in whose database the test leaves no workflow."""
    yield
    sagas.shutdown()
    engine = sa.create_engine(app.config["system_database_url"])
    with engine.connect() as connection:
        query = "SELECT name FROM workflow_status WHERE name != 'sagas.catalog'"
        written = list(connection.execute(sa.text(query)))
    engine.dispose()
    assert written == []


def of_result(result: Any) -> None:
    LOG.append(("undone", result))


def of_result_and_order(result: Any, order: Any) -> None: ...


def of_unknown(result: Any, custommer: Any) -> None: ...


def of_unknown_option(result: Any, force: bool = False) -> None: ...


async def of_result_async(result: Any) -> None:
    await asyncio.sleep(0)
    LOG.append(("undone", result))


@step
def work(n: int = 0) -> int:
    LOG.append(("worked", n))
    return n


@step
async def work_async(n: int = 0) -> int:
    LOG.append(("worked", n))
    return n


@saga
def simple(order: Any, *rest: Any, note: Any = "", **more: Any) -> Any:
    return work(1)


@saga
async def simple_async(order: Any, *, note: Any = "") -> Any:
    return await work_async(1)


# Definitions.


@pytest.mark.parametrize(
    ("undo", "words"),
    [
        (of_unknown, "takes 'custommer', which is no parameter of the step.*it has: order"),
        (of_unknown_option, "takes 'force', which is no parameter"),
        (lambda: None, "must take the step's result"),
        (of_result_async, "is a plain function, but its undo.*is async"),
        ("of_result", "is no function"),
    ],
)
def test_an_undo_that_does_not_fit(undo: Any, words: str) -> None:
    """An undo that could not be called is refused at import, in both forms."""
    with pytest.raises(StepDefinitionError, match=words):

        @step(undo=undo)
        def reserve(order: Any) -> Any: ...

    @step
    def reserve_below(order: Any) -> Any: ...

    with pytest.raises(StepDefinitionError, match=words):
        reserve_below.undo(undo)


def test_a_step_decorated_twice() -> None:
    """A second `@step` is refused rather than one of them ignored."""
    with pytest.raises(StepDefinitionError, match="is a step already"):

        @step(name="outer")
        @step(name="inner")
        def reserve() -> None: ...


def test_a_step_declared_with_two_undos() -> None:
    """A step has one undo; the second is refused."""

    @step(undo=of_result)
    def reserve() -> None: ...

    with pytest.raises(StepDefinitionError, match="has an undo already"):
        reserve.undo(of_result)


class Shop:
    def method(self) -> None: ...

    def __call__(self) -> None: ...


def a_generator() -> Any:
    yield 1


async def an_async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (Shop, "takes a function"),
        (Shop(), "takes a function"),
        (Shop().method, "takes a function"),
        (Shop.method, "is a method"),
        (staticmethod(a_generator), "takes a function"),
        (classmethod(a_generator), "takes a function"),
        (functools.partial(a_generator), "takes a function"),
        (print, "takes a function"),
        ("simple", "takes a function"),
        (a_generator, "is a generator"),
        (an_async_generator, "is a generator"),
        (work, "is a step"),
        (simple, "is a saga already"),
    ],
)
def test_a_saga_of_something_else(fn: Any, words: str) -> None:
    """Only a function can be resumed by its name after a restart; all else is refused."""
    with pytest.raises(SagaDefinitionError, match=words):
        saga(fn)


def test_a_method_is_no_saga() -> None:
    """A saga in the body of a class is refused where it stands."""
    with pytest.raises(SagaDefinitionError, match="is a method"):

        class Orders:
            @saga
            def fulfil(self) -> None: ...


def test_a_lambda_is_a_function() -> None:
    """A lambda can be a saga, under a name of its own."""
    assert saga(name="of a lambda")(lambda: 1).name == "of a lambda"


def test_two_sagas_of_one_name() -> None:
    """Two sagas of one name are refused, with both places."""

    @saga(name="twice")
    def one() -> None: ...

    with pytest.raises(SagaDefinitionError, match=r"Two sagas are named 'twice'.*test_bad_input"):

        @saga(name="twice")
        def two() -> None: ...


def test_two_steps_of_one_name() -> None:
    """Two steps of one name are refused, with both places."""

    @step(name="twice")
    def one() -> None: ...

    with pytest.raises(StepDefinitionError, match=r"Two steps are named 'twice'.*test_bad_input"):

        @step(name="twice")
        def two() -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "two\nlines"},
        {"name": 7},
        {"undo_failure": "stop"},
        {"undo_failure": None},
        {"max_recovery_attempts": 0},
        {"max_recovery_attempts": -1},
        {"max_recovery_attempts": NAN},
        {"max_recovery_attempts": 2.0},
        {"max_recovery_attempts": True},
        {"max_recovery_attempts": "3"},
    ],
    ids=label,
)
def test_options_of_a_saga_that_make_no_sense(options: dict[str, Any]) -> None:
    """A senseless option is refused at import and named."""
    (option,) = options
    with pytest.raises(SagaDefinitionError, match=option):

        @saga(**options)
        def never() -> None: ...


@pytest.mark.parametrize("decorator", [saga, step])
def test_unknown_options(decorator: Any) -> None:
    """A misspelt option is an error at import."""
    with pytest.raises(TypeError, match="timeot"):
        decorator(timeot=3)
    with pytest.raises(TypeError, match="timeot"):
        simple.options(timeot=3)  # type: ignore[call-arg]


# Starts.

STARTS: dict[str, Callable[..., Any]] = {
    "start": simple.start,
    "run": simple.run,
    "call": simple,
    "options": lambda *args, **kwargs: simple.options(saga_id="x").start(*args, **kwargs),
    "start_async": lambda *args, **kwargs: asyncio.run(simple.start_async(*args, **kwargs)),
    "run_async": lambda *args, **kwargs: asyncio.run(simple.run_async(*args, **kwargs)),
    "async start": simple_async.start,
    "async run": simple_async.run,
    "async start_async": lambda *a, **kw: asyncio.run(simple_async.start_async(*a, **kw)),
    "async call": lambda *a, **kw: asyncio.run(_awaited(lambda: simple_async(*a, **kw))),
}


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def test_arguments_that_cannot_be_stored(unwritten: None) -> None:
    """The argument is named, and nothing is started or written, by whichever way."""
    DBOS.register_queue("there")
    ways = {**STARTS, "queue": lambda *a, **kw: simple.options(queue="there").start(*a, **kw)}
    for name, start in ways.items():
        with pytest.raises(SagaUsageError, match=r"Argument 'order'.*lock"):
            start(threading.Lock())
        with pytest.raises(SagaUsageError, match=r"Argument 'note'.*function"):
            start(1, note=lambda: 1)
        assert LOG == [], name


def test_arguments_that_do_not_fit(unwritten: None) -> None:
    """A start with too few arguments is a TypeError, and nothing is started or written."""
    for name, start in STARTS.items():
        with pytest.raises(TypeError, match="order"):
            start()
        assert LOG == [], name


@pytest.mark.parametrize("way", STARTS)
def test_a_start_before_launch(way: str) -> None:
    """A saga started before `launch` is refused with what to do."""
    with pytest.raises(SagaUsageError, match=r"before launch\(\).*sagas\.launch"):
        STARTS[way](1)
    assert LOG == []


@pytest.mark.parametrize(
    "options",
    [
        {"saga_id": ""},
        {"saga_id": "  "},
        {"saga_id": 7},
        {"saga_id": "order\x007"},
        {"saga_id": "order\ud8007"},
        {"queue": ""},
        {"queue": 7},
        {"queue": "q", "priority": 0},
        {"queue": "q", "priority": -1},
        {"queue": "q", "priority": True},
        {"queue": "q", "priority": 1.5},
        {"queue": "q", "priority": 2**31},
        {"queue": "q", "priority": "high"},
        {"queue": "q", "delay": -1},
        {"queue": "q", "delay": NAN},
        {"queue": "q", "delay": math.inf},
        {"queue": "q", "delay": "1"},
        {"queue": "q", "delay": timedelta(seconds=-1)},
        {"queue": "q", "deduplication_id": ""},
        {"queue": "q", "deduplication_id": 7},
        {"priority": 1},
        {"delay": 1},
        {"deduplication_id": "d"},
        {"attributes": ["a"]},
        {"attributes": {1: "a"}},
        {"attributes": {"a": object()}},
        {"attributes": {"a": NAN}},
        {"attributes": {"a": {1, 2}}},
        {"attributes": {"a": "\x00"}},
        {"attributes": {"a": "\ud800"}},
        {"attributes": {"sagas.turn": {"at": 1}}},
        {"attributes": {"sagas.parked": "x"}},
    ],
    ids=label,
)
def test_options_of_a_start_that_make_no_sense(options: dict[str, Any]) -> None:
    """A senseless option of a start is refused when it is given, and named."""
    wrong = list(options)[-1]
    with pytest.raises(SagaUsageError, match=wrong if wrong != "attributes" else "attribute"):
        simple.options(**options)


def test_a_queue_that_does_not_exist(unwritten: None) -> None:
    """A saga for a queue that nobody serves would wait for ever: it is refused."""
    with pytest.raises(SagaUsageError, match=r"queue 'nowhere'.*register_queue\('nowhere'\)"):
        simple.options(queue="nowhere").start(1)
    with pytest.raises(SagaUsageError, match="nowhere"):
        asyncio.run(simple.options(queue="nowhere").start_async(1))


def test_a_blocking_call_on_an_event_loop(unwritten: None) -> None:
    """What would block a running event loop is refused with the way to do it."""

    async def main() -> None:
        for call, words in (
            (lambda: simple(1), "run_async"),
            (lambda: simple.run(1), "_async"),
            (lambda: simple.start(1), "start_async"),
            (lambda: simple_async.start(1), "start_async"),
            (lambda: simple_async.run(1), "_async"),
            (lambda: SagaHandle[int]("x").result(), "result_async"),
        ):
            with pytest.raises(SagaUsageError, match=words):
                call()

    asyncio.run(main())
    assert LOG == []


@pytest.mark.parametrize("timeout", [-1, NAN, math.inf, "1", True, timedelta(seconds=-1)])
def test_a_limit_that_makes_no_sense(app: sagas.Launched, timeout: Any) -> None:
    """A limit for a wait is refused where it is no span of time."""
    handle = simple.start(1)
    with pytest.raises(SagaUsageError, match="timeout"):
        handle.result(timeout=timeout)
    with pytest.raises(SagaUsageError, match="timeout"):
        asyncio.run(handle.result_async(timeout=timeout))
    with pytest.raises(SagaUsageError, match="timeout"):
        sagas.shutdown(timeout=timeout)
    assert handle.result() == 1


def test_a_saga_that_does_not_exist(app: sagas.Launched) -> None:
    """A saga that nobody has started is not found, whoever asks."""
    handle = SagaHandle[int]("no-such")
    with closing(SagaClient()) as client:
        for ask in (
            handle.status,
            handle.state,
            lambda: handle.result(timeout=1),
            lambda: asyncio.run(handle.result_async(timeout=1)),
            lambda: client.get("no-such"),
            lambda: client.history("no-such"),
        ):
            with pytest.raises(SagaNotFoundError, match="no-such"):
                ask()


@pytest.mark.parametrize(
    "options",
    [
        {"status": "DONE"},
        {"status": ["FAILED", "DONE"]},
        {"limit": 0},
        {"limit": -1},
        {"limit": True},
        {"limit": "7"},
        {"limit": 1.5},
    ],
    ids=label,
)
def test_a_list_that_makes_no_sense(app: sagas.Launched, options: dict[str, Any]) -> None:
    """A status that does not exist, or a senseless limit, is refused."""
    with closing(SagaClient()) as client, pytest.raises(SagaUsageError, match=r"status|limit"):
        client.list(**options)


# In the body of a saga.


@saga
def with_body(what: str) -> Any:
    return BODIES[what]()


@saga
async def with_async_body(what: str) -> Any:
    return await ASYNC_BODIES[what]()


@step
def in_a_step(what: str) -> Any:
    return BODIES[what]()


def _in_a_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def _in_a_pool() -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, 1).result()


def _mapped_by_a_pool() -> Any:
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(work, [1]))


def _in_a_copied_context() -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, work, 1).result()


def _async_step() -> Any:
    return work_async(1)


def _async_step_forgotten() -> str:
    work_async(1)
    return "done"


BODIES: dict[str, Callable[[], Any]] = {
    "thread": _in_a_thread,
    "pool": _in_a_pool,
    "pool.map": _mapped_by_a_pool,
    "context": _in_a_copied_context,
    "async step": _async_step,
    "async step forgotten": _async_step_forgotten,
    "saga": lambda: simple(1),
    "saga.start": lambda: simple.start(1),
    "saga.run": lambda: simple.run(1),
    "saga.options": lambda: simple.options(saga_id="inner").start(1),
    "result": lambda: SagaHandle[int]("x").result(),
    "add_compensation": lambda: add_compensation(of_result, 1),
    "add nothing": lambda: add_compensation(None, 1),  # type: ignore[arg-type]
    "add async": lambda: add_compensation(of_result_async, 1),
}


async def _to_thread(of: Any) -> Any:
    return await asyncio.to_thread(of, 1)


async def _sync_step() -> Any:
    return work(1)


ASYNC_BODIES: dict[str, Callable[[], Awaitable[Any]]] = {
    "to_thread": lambda: _to_thread(work),
    "sync step": _sync_step,
    "saga": lambda: simple_async(1),
    "saga.start_async": lambda: simple.start_async(1),
    "saga.run_async": lambda: simple_async.run_async(1),
    "result_async": lambda: SagaHandle[int]("x").result_async(),
}


def _fails_with_usage_error(run: Callable[[], Any], words: str) -> None:
    with pytest.raises(SagaFailedError) as caught:
        run()
    failure = caught.value.failure
    assert failure is not None
    assert failure.error_type == "sagas.SagaUsageError"
    assert words in failure.message
    assert LOG == []
    sagas_here = [w.name for w in DBOS.list_workflows() if w.name != "sagas.catalog"]
    assert len(sagas_here) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("thread", "thread"),
        ("pool", "thread"),
        ("pool.map", "thread"),
        ("context", "another thread"),
        ("async step", "cannot be awaited in the sync saga"),
        ("async step forgotten", "cannot be awaited in the sync saga"),
        ("saga", "in another saga"),
        ("saga.start", "in another saga"),
        ("saga.run", "in another saga"),
        ("saga.options", "in another saga"),
        ("result", "in a workflow or a step"),
        ("add nothing", "takes a function"),
        ("add async", "is async"),
    ],
)
def test_what_a_body_must_not_do(app: sagas.Launched, what: str, words: str) -> None:
    """A wrong call in a saga's body fails there and does nothing: no step runs unrecorded."""
    _fails_with_usage_error(lambda: with_body.run(what), words)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("to_thread", "another thread"),
        ("sync step", "would block the event loop"),
        ("saga", "in another saga"),
        ("saga.start_async", "in another saga"),
        ("saga.run_async", "in another saga"),
        ("result_async", "in a workflow or a step"),
    ],
)
def test_what_an_async_body_must_not_do(app: sagas.Launched, what: str, words: str) -> None:
    """So it is in an async saga's body."""
    _fails_with_usage_error(lambda: with_async_body.run(what), words)


@saga
def with_step(what: str) -> Any:
    return in_a_step(what)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("saga", "in a step"),
        ("saga.start", "in a step"),
        ("saga.run", "in a step"),
        ("result", "in a workflow or a step"),
        ("add_compensation", "in a step"),
    ],
)
def test_what_a_step_must_not_do(app: sagas.Launched, what: str, words: str) -> None:
    """A wrong call in a step fails the step."""
    _fails_with_usage_error(lambda: with_step.run(what), words)


@DBOS.workflow(name="plain workflow")
def plain_workflow(what: str) -> Any:
    return {"current": current, "add": lambda: add_compensation(of_result, 1)}[what]()


@pytest.mark.parametrize("what", ["current", "add"])
def test_what_needs_a_saga(app: sagas.Launched, what: str) -> None:
    """Outside a saga, also in a plain workflow, there is none to ask or to add to."""
    with pytest.raises(SagaUsageError, match="outside a saga"):
        current() if what == "current" else add_compensation(of_result, 1)
    with pytest.raises(SagaUsageError, match="outside a saga"):
        plain_workflow(what)


# Undos whose call does nothing but make a coroutine.


@step(undo=lambda result: of_result_async(result))  # noqa: PLW0108
async def undone_by_a_lambda() -> str:
    return "lambda"


@step
async def compensate(result: str) -> None:
    LOG.append(("undone", result, idempotency_key()))


@saga
async def with_hidden_coroutines(what: str) -> None:
    if what == "lambda":
        await undone_by_a_lambda()
    elif what == "step":
        add_compensation(compensate, "step")
    else:
        add_compensation(functools.partial(compensate, "partial"))
    raise ValueError("turn round")


@pytest.mark.parametrize("what", ["lambda", "step", "partial"])
def test_an_undo_that_returns_an_awaitable(app: sagas.Launched, what: str) -> None:
    """An undo whose call only makes a coroutine is awaited, never counted as done unrun."""
    with pytest.raises(SagaFailedError, match="turn round"):
        with_hidden_coroutines.run(what)
    assert [entry[:2] for entry in LOG] == [("undone", what)]


# The launch.


def _launch_is_refused(config: Any, words: str, **options: Any) -> None:
    with pytest.raises(SagaUsageError, match=words) as caught:
        sagas.launch(config, **options)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_answer(config: dict[str, Any]) -> None:
    """A PostgreSQL that is not there is told at once, by its URL without the password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql://alice:secret@127.0.0.1:{port}/shop"
    _launch_is_refused(
        {**config, "system_database_url": url},
        rf"alice:\*+@127\.0\.0\.1:{port}/shop.*cannot be used",
    )
    with pytest.raises(SagaUsageError, match="cannot be used"):
        SagaClient(url)
    assert sagas.launch(config).config["system_database_url"] == config["system_database_url"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://alice:secret@localhost/shop", "PostgreSQL or SQLite, not mysql"),
        ("postgres://alice:secret@localhost/shop", "not postgres"),
        ("shop.sqlite", "no database URL"),
        ("sqlite:///no/such/folder/shop.sqlite", "folder does not exist"),
        ("postgresql://alice:secret@localhost", "names no database"),
        (7, "must be text"),
    ],
)
def test_a_url_that_cannot_be_used(config: dict[str, Any], url: Any, words: str) -> None:
    """A wrong URL is told with the right shape, by the launch and by a client."""
    _launch_is_refused({**config, "system_database_url": url}, words)
    with pytest.raises(SagaUsageError, match=words):
        SagaClient(url)


def test_a_file_that_is_no_database(config: dict[str, Any], tmp_path: Path) -> None:
    """A file of another kind is refused and left as it is."""
    path = tmp_path / "notes.sqlite"
    path.write_text("Not a database. " * 200)
    _launch_is_refused({**config, "system_database_url": f"sqlite:///{path}"}, "not a database")
    assert path.read_text() == "Not a database. " * 200


def test_a_client_without_tables(tmp_path: Path) -> None:
    """A database without DBOS's tables holds no sagas, and the client makes nothing there."""
    path = tmp_path / "empty.sqlite"
    with pytest.raises(SagaUsageError, match=r"no SQLite file.*empty\.sqlite.*launch\(\)"):
        SagaClient(f"sqlite:///{path}")
    assert not path.exists()
    path.touch()
    with pytest.raises(SagaUsageError, match=r"(?s)tables cannot be read.*launch\(\)"):
        SagaClient(f"sqlite:///{path}")
    assert path.stat().st_size == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "is no YAML"),
        ("- a", "must be a mapping"),
        ("name: shop\nsystem_databse_url: x", "Unknown key 'system_databse_url'"),
        ("name: Shop", "lower-case"),
        ("name: shop\ndatabase: {sys_db_pool: 3}", "Unknown key 'sys_db_pool'"),
        ("name: shop\nsystem_database_url: ftp://x/y", "not ftp"),
    ],
)
def test_a_bad_configuration_file(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong with `dbos-config.yaml` is told, and no database is made."""
    (tmp_path / "dbos-config.yaml").write_text(text)
    _launch_is_refused(None, words)
    assert not list(tmp_path.glob("*.sqlite*"))


def test_a_configuration_file_that_is_not_there() -> None:
    """A file that was named and is missing is told."""
    _launch_is_refused("nowhere.yaml", r"nowhere\.yaml.*cannot be read")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"databse_url": "x"}, "Unknown key 'databse_url'.*DBOSConfig has"),
        ({"name": "No Good"}, "lower-case"),
        ({"serializer": object()}, "cannot store Python errors"),
    ],
    ids=["key", "name", "serializer"],
)
def test_a_bad_configuration(config: dict[str, Any], changes: Any, words: str) -> None:
    """What is wrong with a configuration is told; afterwards a right one can be launched."""
    _launch_is_refused({**config, **changes}, words)
    sagas.launch(config)
    assert simple.run(1) == 1


@pytest.mark.parametrize("executor_id", [7, "", " ", "a\x00b"])
def test_a_bad_executor_id(config: dict[str, Any], executor_id: Any) -> None:
    """An executor ID by which nothing could be resumed is refused, given either way."""
    _launch_is_refused(config, "executor_id", executor_id=executor_id)
    _launch_is_refused({**config, "executor_id": executor_id}, "executor_id")


def test_a_second_launch(app: sagas.Launched, config: dict[str, Any]) -> None:
    """A second launch in one process is refused, and the first goes on."""
    _launch_is_refused(config, "called twice")
    assert simple.run(1) == 1


SECOND_PROCESS = """
import json, sys
import sagas
try:
    application = sagas.launch(json.loads(sys.argv[1]))
except sagas.SagaUsageError as error:
    print(error)
else:
    sagas.shutdown()
    print("launched as", application.config["executor_id"])
"""


def _launch_elsewhere(config: dict[str, Any]) -> str:
    run = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_second_process_of_the_same_name(config: dict[str, Any]) -> None:
    """Two processes of one executor ID would run the same sagas twice: the second is refused."""
    named = {**config, "executor_id": "one"}
    sagas.launch(named)
    answer = _launch_elsewhere(named)
    assert "Another process" in answer
    assert "executor 'one'" in answer
    assert "secret" not in answer
    sagas.shutdown()
    assert _launch_elsewhere(named) == "launched as one"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_second_process_of_another_name(app: sagas.Launched, config: dict[str, Any]) -> None:
    """Further processes may join on PostgreSQL, with names of their own or without."""
    assert app.config["executor_id"] == "local"
    assert _launch_elsewhere({**config, "executor_id": "other"}) == "launched as other"
    assert _launch_elsewhere(config) == "launched as local-2"


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "other"])
def test_a_second_process_on_sqlite(
    app: sagas.Launched, config: dict[str, Any], name: str | None
) -> None:
    """SQLite is for one process, whatever its name: the refusal does not advise another name."""
    second = {**config, "executor_id": name}
    answer = _launch_elsewhere(second)
    assert "Another process" in answer
    assert "SQLite" in answer
    assert "executor_id=" not in answer
    sagas.shutdown()
    assert _launch_elsewhere(second) == f"launched as {name or 'local'}"
