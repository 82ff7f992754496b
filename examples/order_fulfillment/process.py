"""A worker as its parent sees it: a process that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .run import RUN, SERVICES_DATABASE, SYSTEM_DATABASE, DemoFailedError, Run

MODULE = f"{__package__}.worker"


@dataclass(slots=True)
class Worker:
    """A running worker."""

    number: int
    """The first is 1."""
    process: subprocess.Popen[bytes]
    log: Path
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def start(cls, number: int, run: Run) -> Worker:
        """Start a worker; what it prints goes into the run's log."""
        environment = os.environ | {
            SYSTEM_DATABASE: run.system_url,
            SERVICES_DATABASE: run.services_url,
            RUN: run.name,
        }
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return cls(number, process, run.log)

    def kill(self) -> datetime:
        """Kill it with SIGKILL: it gets no chance to put anything in order. Returns when."""
        self.process.kill()
        moment = datetime.now(UTC)
        self.process.wait()
        return moment

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def join(self, deadline: float) -> None:
        """
        Wait until it has done all its work.

        Args:
            deadline: By `time.monotonic()`.

        Raises:
            DemoFailedError: It failed, or took too long.
        """
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise DemoFailedError(
                f"Worker {self.number} did not come to an end.\n{self._tail()}"
            ) from None
        if code != 0:
            raise DemoFailedError(f"Worker {self.number} failed with code {code}.\n{self._tail()}")

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-40:]])
