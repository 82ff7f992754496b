"""What can stop a running saga: requests, deadlines, the end of its execution."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from steps._errors import StepTimeoutError
from steps._mode import ShuttingDown, alarm
from steps._timeout import Leftover

from . import _dbos, _settings
from ._control import Interrupted, TurnRound
from ._host import Host
from ._marks import Resolution
from ._outcome import is_refusal, stop_of
from ._scope import Scope, nearest_deadline
from ._stop import Stop, Why


def expiry(scope: Scope) -> Stop:
    """That the time of a scope is up."""
    return Stop(Why.SCOPE, f"scope {scope.name}", None, _dbos.now(), scope.timeout)


class Stoppable:
    """
    An execution, as far as it can be stopped.

    Attributes:
        stop: Once set, raised at every further step: see `_control`.
        request: What has been asked from outside, and is not obeyed yet.
        stopped: What has stopped the saga, since a step or a wait was recorded to have been.
        timeout: The saga's time limit, in seconds; None where it has none.
        deadline: When it turns round, in seconds since the epoch; None where it has none.
        resolved: The steps that a person has undone.
        compensating: Whether its undos are running.
        pivoted: Whether it is past its point of no return.
        leftovers: Bodies that went on after their limit.
    """

    def __init__(self, saga_id: str, host: Host) -> None:
        self.saga_id = saga_id
        self.host = host
        self.request: Stop | None = None
        self.stopped: Stop | None = None
        self.timeout: float | None = None
        self.deadline: float | None = None
        self.resolved: Mapping[int, Resolution] = {}
        self.leftovers: list[Leftover] = []
        self.stop: BaseException | None = None
        self.compensating = False
        self.pivoted = False
        self.ending = alarm.event
        self.bell = host.bell()

    def check(self) -> None:
        """
        Go on, or not.

        Raises:
            BaseException: `stop`, or `ShuttingDown`.
        """
        if self.stop is None and self.ending.is_set():
            self.stop = ShuttingDown()
        if self.stop is not None:
            raise self.stop

    def stopping(self, scope: Scope | None = None) -> Stop | None:
        """What keeps a further step of a scope from beginning; None where it may. Undos may."""
        if self.compensating or self.pivoted:
            return None
        if self.request is not None:
            return self.request
        if self.deadline is not None and self.deadline <= _dbos.now() / 1000:
            took = "" if self.timeout is None else f": it did not end within {self.timeout:g} s"
            return Stop(Why.DEADLINE, f"ran past its deadline{took}", None, _dbos.now())
        first = nearest_deadline(scope)
        if first is not None and (first.deadline or 0.0) <= _dbos.now() / 1000:
            return expiry(first)
        return None

    def next_deadline(self, scope: Scope | None) -> float | None:
        """When the saga, or a scope of it, runs out of time; in seconds since the epoch."""
        if self.pivoted:
            return None
        first = nearest_deadline(scope)
        both = [self.deadline, None if first is None else first.deadline]
        return min((d for d in both if d is not None), default=None)

    def is_resolved(self, step_id: int) -> bool:
        """Whether a person has declared the step undone."""
        return step_id in self.resolved

    def note_stop(self, error: BaseException, scope: Scope | None) -> None:
        """A step or a wait has told the body that the saga, or a scope, is stopped: it stays so."""
        stop = stop_of(error)
        if stop is not None and getattr(error, "saga_id", None) == self.saga_id:
            self.stopped = stop
        elif isinstance(error, StepTimeoutError) and is_refusal(error):
            for around in () if scope is None else scope.chain():
                around.expired = around.expired or error.name == expiry(around).reason

    def ask(self, stop: Stop) -> None:
        """Turn round at the next step, or at once in a wait; called from any thread."""
        if self.request is None:
            self.request = stop
            self.bell.ring()

    def resolve(self, resolved: Mapping[int, Resolution]) -> None:
        """Go on without the undos of these steps; called from any thread."""
        self.resolved = resolved
        self.bell.ring()

    def fence(self, why: str) -> None:
        """Have this execution begin nothing more and end; called from any thread."""
        if self.stop is None:
            self.stop = Interrupted(why)
        self.bell.ring()

    async def pause(
        self,
        seconds: float,
        *,
        until: Callable[[], bool],
        settling: bool,
        scope: Scope | None = None,
    ) -> None:
        """
        Wait before another attempt; less long if something happens that ends it.

        Args:
            seconds: How long.
            until: Whether it is to end before.
            settling: Whether what stops the saga does not end it.
            scope: The block that the step is called in.

        Raises:
            BaseException: As `check`.
        """
        ends = time.monotonic() + seconds
        while True:
            self.check()
            left = ends - time.monotonic()
            if left <= 0 or until() or not (settling or self.stopping(scope) is None):
                return
            deadline = None if settling or self.compensating else self.next_deadline(scope)
            if deadline is not None:
                left = min(left, max(deadline - _dbos.now() / 1000, 0.0) + 0.001)
            await self.bell.wait(left)

    async def await_leftovers(self) -> None:
        """Give bodies that went on after their limit a bounded time to end."""
        while self.leftovers:  # until then they stay here, for whoever else must wait for them
            leftover = self.leftovers[0]
            left = leftover.since + _settings.grace() - time.monotonic()
            await leftover.wait(self.host.mode, max(0.0, left))
            if leftover in self.leftovers:
                self.leftovers.remove(leftover)

    def turn_is_next(self) -> bool:
        """Whether a replay has come to where the saga turned round."""
        return isinstance(self.stop, TurnRound)
