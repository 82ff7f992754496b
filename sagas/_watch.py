"""The threads that look after the sagas of a process: its supervisor, its name's keeper."""

from __future__ import annotations

from . import _dbos, _pool, _registry, _running, _settings, _versions
from ._failover import Failover
from ._keeper import Keeper, keeper_of
from ._lock import ExecutorLock
from ._session import SessionLock
from ._strangers import Strangers
from ._supervisor import Supervisor

LOOKS = 2
"""At how many looks in a row a saga must not run here before it is taken up again."""

LOOKS_FOR_THREADS = 24
"""The same where sagas may have to wait for a thread: `max_executor_threads`."""


class Watch:
    """The threads that look after the sagas of this process."""

    def __init__(self, supervisor: Supervisor, keeper: Keeper | None) -> None:
        self._supervisor = supervisor
        self._keeper = keeper

    def stop(self) -> None:
        """End them."""
        self._supervisor.stop()
        if self._keeper is not None:
            self._keeper.stop()
            _running.unbar()


def watch(app: str, url: str | None, held: ExecutorLock | None) -> Watch:
    """
    Begin to look after the sagas of this process.

    Args:
        app: The application.
        url: Its system database, where that is known.
        held: The name of this process.
    """
    _pool.off_loop(_versions.warn_of_stranded, app)

    def regained() -> None:
        _running.unbar()
        supervisor.doubt()

    keeper = keeper_of(
        held,
        lost=lambda: _running.bar("another process has taken this one's name"),
        regained=regained,
    )
    supervisor = Supervisor(
        _dbos.executor_id(),
        by_attributes=(url or "").startswith("postgres"),
        holds=lambda: keeper is None or keeper.holds,
        failover=_failover(app, held),
        strangers=Strangers(
            app,
            _dbos.app_version(),
            _dbos.executor_id(),
            looks=LOOKS if _pool.limited() is None else LOOKS_FOR_THREADS,
        ),
    )
    supervisor.start()
    if keeper is not None:
        keeper.start()
    return Watch(supervisor, keeper)


def _failover(app: str, held: ExecutorLock | None) -> Failover | None:
    patience = _settings.failover()
    if not isinstance(held, SessionLock) or patience is None:
        return None
    return Failover(
        held,
        app,
        _dbos.app_version(),
        _registry.names,
        max_takeovers=_registry.most_takeovers,
        patience=patience,
    )
