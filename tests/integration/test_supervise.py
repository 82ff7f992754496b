"""`supervise`: sagas are looked after where the application launches DBOS itself."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, SagaUsageError, Supervision, _lock, saga
from sagas._lock import acquire
from sagas._session import Session, lock_key
from steps import step

from .support import Ledger, until

LEDGER = Ledger()
GATE = threading.Event()
FAST_LOOKS = Supervision(interval=0.05, failover=1)


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    GATE.clear()


@step(undo=lambda result: LEDGER.write(f"undo {result}"))
def act(name: str) -> str:
    LEDGER.write(name)
    return name


@step
def wait_at_gate() -> None:
    LEDGER.write("waiting")
    assert GATE.wait(15)


@saga(name="supervise.gated")
def gated() -> str:
    act("a")
    wait_at_gate()
    return "done"


@pytest.fixture
def own_dbos(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """DBOS, launched by the application; what it was given."""
    config["executor_id"] = "own"
    DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    yield config
    GATE.set()
    sagas.shutdown()
    DBOS.destroy()


def cancelled_in_dbos() -> SagaHandle[str]:
    """A saga that DBOS has cancelled in its second step."""
    handle = gated.options(saga_id=uuid.uuid4().hex).start()
    until(lambda: "waiting" in LEDGER)
    DBOS.cancel_workflow(handle.saga_id)
    GATE.set()
    return handle


@pytest.mark.slow
def test_a_saga_that_dbos_cancelled_is_undone(own_dbos: dict[str, Any]) -> None:
    """What DBOS stops is found and undone, with nothing of `launch`."""
    with sagas.supervise(FAST_LOOKS, config=own_dbos):
        handle = cancelled_in_dbos()
        until(lambda: handle.status() is SagaStatus.FAILED)
        assert LEDGER == ["a", "waiting", "undo a"]
        with SagaClient() as client:
            assert [s.saga_id for s in client.list()] == [handle.saga_id]


@pytest.mark.slow
def test_its_end_leaves_dbos_alone(own_dbos: dict[str, Any]) -> None:
    """After its end sagas run on, and nobody looks after them, until it is begun again."""
    with sagas.supervise(FAST_LOOKS, config=own_dbos):
        running = gated.start()
        until(lambda: "waiting" in LEDGER)
    GATE.set()
    assert running.result() == "done"
    assert {t.name for t in threading.enumerate()}.isdisjoint({"sagas-supervisor", "sagas-keeper"})
    GATE.clear()
    LEDGER.clear()
    handle = cancelled_in_dbos()
    sagas.supervise(FAST_LOOKS, config=own_dbos)
    until(lambda: handle.status() is SagaStatus.FAILED)
    sagas.shutdown()
    assert gated.start().result() == "done"


def test_the_database_is_found_as_by_launch(
    own_dbos: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `config` the variable names the database; the application's name is DBOS's."""
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", own_dbos["system_database_url"])
    with sagas.supervise() as looked_after:
        assert looked_after.config["name"] == "test-app"
        assert looked_after.config["executor_id"] == "own"


def test_another_database_is_refused(own_dbos: dict[str, Any], tmp_path: Any) -> None:
    """A configuration that is not DBOS's would look after the sagas of somebody else."""
    with pytest.raises(SagaUsageError, match="DBOS uses another database"):
        sagas.supervise()  # by default a SQLite file
    other = {**own_dbos, "system_database_url": f"sqlite:///{tmp_path}/other.sqlite"}
    with pytest.raises(SagaUsageError, match=r"other\.sqlite.*supervise\(config="):
        sagas.supervise(config=other)
    assert not (tmp_path / "other.sqlite").exists()
    assert sagas._launch.launched() is None


@pytest.mark.slow
def test_it_is_called_once(own_dbos: dict[str, Any]) -> None:
    """A second call, and `launch` beside it, are refused; both leave the first as it is."""
    with sagas.supervise(FAST_LOOKS, config=own_dbos):
        with pytest.raises(SagaUsageError, match="supervised already"):
            sagas.supervise(config=own_dbos)
        with pytest.raises(SagaUsageError, match="called twice"):
            sagas.launch(own_dbos)
        handle = cancelled_in_dbos()
        until(lambda: handle.status() is SagaStatus.FAILED)


def test_launch_leaves_the_applications_dbos_alone(own_dbos: dict[str, Any]) -> None:
    """`launch` where DBOS is launched already says what to do, and destroys nothing."""
    with pytest.raises(SagaUsageError, match="Call supervise"):
        sagas.launch(own_dbos)
    GATE.set()
    assert gated.start().result() == "done"


def test_without_dbos(config: dict[str, Any]) -> None:
    """`supervise` before DBOS is launched, or after `launch`, says what to do."""
    with pytest.raises(SagaUsageError, match=r"before DBOS\.launch"):
        sagas.supervise(config=config)
    DBOS(config=config)  # type: ignore[arg-type]
    try:
        with pytest.raises(SagaUsageError, match=r"before DBOS\.launch"):
            sagas.supervise(config=config)
    finally:
        DBOS.destroy()
    with sagas.launch(config), pytest.raises(SagaUsageError, match="supervised already"):
        sagas.supervise(config=config)


def test_a_wrong_supervision_is_refused(own_dbos: dict[str, Any]) -> None:
    """What is no `Supervision`, and a key that DBOS does not know, are refused."""
    with pytest.raises(SagaUsageError, match="takes a Supervision"):
        sagas.supervise(5, config=own_dbos)  # type: ignore[arg-type]
    with pytest.raises(SagaUsageError, match="Unknown key 'nmae'"):
        sagas.supervise(config={**own_dbos, "nmae": "x"})


def test_it_holds_its_executors_name(
    own_dbos: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes see that this one lives; the name is free again after its end."""
    monkeypatch.setattr(_lock, "PATIENCE", 0.2)
    url = own_dbos["system_database_url"]
    with sagas.supervise(FAST_LOOKS, config=own_dbos):
        if url.startswith("sqlite"):
            with pytest.raises(SagaUsageError, match="serves one process"):
                acquire(url, "test-app", "own")
            return
        session = Session(sa.make_url(url))
        key = lock_key("test-app", "own")
        assert key in session.holders([key])
    until(lambda: not session.holders([key]))
    assert session.try_lock(key)
    try:
        with pytest.raises(SagaUsageError, match="Another process is running as executor 'own'"):
            sagas.supervise(config=own_dbos)
        assert sagas._launch.launched() is None
    finally:
        session.close()


@pytest.mark.parametrize("patience", [1, None])
def test_failover_is_for_servers(own_dbos: dict[str, Any], patience: float | None) -> None:
    """A SQLite file serves one process, so there nobody is taken over from; nor where it is off."""
    with sagas.supervise(Supervision(failover=patience), config=own_dbos) as looked_after:
        on_server = own_dbos["system_database_url"].startswith("postgres")
        takes_over = looked_after._watch._supervisor._failover is not None
        assert takes_over == (on_server and patience is not None)
