"""New code, old sagas: versions that strand, and that are adopted."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import SagaClient, SagaHandle, SagaStatus, saga
from steps import receive, step

from ..conftest import FAST
from .support import until

ENTERED = threading.Semaphore(0)
GATE = threading.Event()


@step
def wait_at_gate() -> None:
    ENTERED.release()
    assert GATE.wait(15)


@saga(name="versions-approved")
def approved() -> str:
    wait_at_gate()
    return str(receive("approval", timeout=20))


def versioned(config: dict[str, Any], version: str) -> dict[str, Any]:
    return {**config, "application_version": version}


@pytest.fixture
def stranded(config: dict[str, Any]) -> None:
    """A saga that was running when its version went away, and one that had not begun."""
    GATE.clear()
    with sagas.launch(versioned(config, "old")):
        DBOS.register_queue(FAST, polling_interval_sec=0.01)
        approved.options(saga_id="running").start()
        assert ENTERED.acquire(timeout=10)
        approved.options(saga_id="waiting", queue=FAST, delay=3600).start()
        for saga_id in ("running", "waiting"):
            with SagaClient() as client:
                client.send(saga_id, "approval", f"yes, {saga_id}")
    GATE.set()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "have not ended" in r.getMessage()]


def test_launch_tells_of_stranded_sagas(
    stranded: None, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Sagas of another version, running or not begun, are counted, and the way out is named."""
    with caplog.at_level(logging.WARNING, "sagas"), sagas.launch(versioned(config, "new")):
        [warning] = warnings(caplog)
        assert warning.startswith("2 sagas of version 'old' have not ended.")
        assert "launch(as_version='old')" in warning
        assert SagaHandle[str]("running").status() is SagaStatus.PENDING
        caplog.clear()
    with caplog.at_level(logging.WARNING, "sagas"), sagas.launch(versioned(config, "old")):
        assert warnings(caplog) == []


def test_those_of_another_application_are_not_stranded(
    stranded: None, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An application is told of its own sagas, and not of those of one with the same names."""
    other = {**versioned(config, "other-1"), "name": "other-app"}
    with caplog.at_level(logging.WARNING, "sagas"), sagas.launch(other):
        assert warnings(caplog) == []


@pytest.mark.slow
def test_a_version_is_adopted(stranded: None, config: dict[str, Any]) -> None:
    """`as_version` takes them up with their messages; the latest version stays what it is."""
    with sagas.launch(versioned(config, "new")):
        DBOS.set_latest_application_version("new")  # SQLite's times are in seconds
        assert DBOS.get_latest_application_version()["version_name"] == "new"
    with sagas.launch(versioned(config, "new"), as_version="old"):
        handle = SagaHandle[str]("running")
        assert handle.result(timeout=20) == "yes, running"
        DBOS.set_workflow_delay("waiting", delay_seconds=0.001)
        until(lambda: SagaHandle[str]("waiting").status() is SagaStatus.COMPLETED)
        assert SagaHandle[str]("waiting").result() == "yes, waiting"
        assert DBOS.get_latest_application_version()["version_name"] == "new"
