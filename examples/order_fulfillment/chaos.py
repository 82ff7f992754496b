"""The tale of a run: workers are started, killed in the middle of sagas, and started again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from sagas import SagaClient, SagaState, SagaStatus, StepStatus

from .lives import Life, Statuses
from .process import Worker
from .run import Run, saga_id
from .saga import fulfil_order

KILLS = 2
PATIENCE = 120.0
"""Seconds that the whole tale may take."""


class Watch:
    """A look at the sagas of one run, from outside."""

    def __init__(self, client: SagaClient, run: Run, order_ids: Sequence[str]) -> None:
        self._client = client
        self._run = run
        self._orders = {saga_id(run.name, order_id): order_id for order_id in order_ids}

    def statuses(self) -> Statuses:
        """The state of each saga of this run."""
        # A database that was given may hold those of other runs, at the same time too.
        newest = self._client.list(name=fulfil_order, limit=3 * len(self._orders))
        return {self._orders[s.saga_id]: s.status for s in newest if s.saga_id in self._orders}

    def state(self, order_id: str) -> SagaState:
        """One saga with its steps."""
        return self._client.get(saga_id(self._run.name, order_id))

    def is_midway(self, order_id: str, since: datetime) -> bool:
        """Whether a saga has undone a step since then, and has another to undo."""
        steps = self.state(order_id).steps
        fresh = any(s.compensated_at is not None and s.compensated_at > since for s in steps)
        return fresh and any(s.status is StepStatus.COMPLETED for s in steps)


def tell(run: Run, order_ids: Sequence[str], say: Callable[[str], None]) -> list[Life]:
    """
    Run the orders through workers, all but the last of which are killed.

    Args:
        run: Where.
        order_ids: All of them.
        say: Told what happens, as it happens.

    Returns:
        The workers' lives, in order.

    Raises:
        DemoFailedError: A worker failed, or it took too long.
    """
    deadline = time.monotonic() + PATIENCE
    lives: list[Life] = []
    while not lives or lives[-1].killed_at is not None:
        worker = Worker.start(len(lives) + 1, run)
        say(f"worker {worker.number} started, pid {worker.pid}")
        try:
            life = _live(worker, run, order_ids, lives[-1] if lives else None, deadline)
        finally:
            worker.kill()
        lives.append(life)
        say(_end_of(life, len(order_ids)))
    return lives


def _live(
    worker: Worker, run: Run, order_ids: Sequence[str], before: Life | None, deadline: float
) -> Life:
    with SagaClient(run.system_url) as client:
        watch = Watch(client, run, order_ids)
        killed_at = None
        if worker.number <= KILLS and _moment_comes(watch, worker, before, deadline):
            killed_at = worker.kill()
        else:
            worker.join(deadline)
        return Life(worker.number, worker.started_at, killed_at, watch.statuses())


def _moment_comes(watch: Watch, worker: Worker, before: Life | None, deadline: float) -> bool:
    """
    Wait for the worst moment to kill a worker: some sagas run, and one is half undone by it.

    From the second worker on that is, if there still is one, a saga that was killed before.

    Returns:
        False where the worker ended, or the time was up, without such a moment.
    """
    while worker.is_alive and time.monotonic() < deadline:
        statuses = watch.statuses()
        running = [order for order, s in statuses.items() if s is SagaStatus.PENDING]
        undoing = [order for order, s in statuses.items() if s is SagaStatus.COMPENSATING]
        if before is not None and any(not statuses[order].is_final for order in before.caught):
            undoing = [order for order in undoing if order in before.caught]
        enough = len(running) >= 3 and (len(undoing) >= 2 or before is not None)
        if enough and any(watch.is_midway(order, worker.started_at) for order in undoing):
            return True
        time.sleep(0.01)
    return False


def _end_of(life: Life, orders: int) -> str:
    counts = Counter(life.statuses.values())
    figures = ", ".join(f"{counts[status]} {status}" for status in SagaStatus if counts[status])
    if life.killed_at is None:
        return f"worker {life.number} is through: {figures}"
    rest = orders - len(life.statuses)
    return f"worker {life.number} killed with SIGKILL: {figures}, {rest} not begun"
