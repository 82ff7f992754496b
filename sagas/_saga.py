"""`@saga`: a workflow function whose steps are undone when it fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from steps._mode import ASYNC_MARK, drive, is_async
from steps._names import Names, check_name
from steps._policy import FOR_EVER, RetryPolicy, Seconds, policy_or, seconds
from steps._step import Step

from . import _arguments, _catalog, _dbos, _registry
from ._engine import Engine, execute
from ._errors import SagaDefinitionError
from ._handle import SagaHandle, refuse_on_loop
from ._host import BlockingHost, LoopHost
from ._registry import OnTerminate, Rules
from ._starter import (
    Definition,
    Starter,
    StartOptions,
    check_startable,
    publish_catalog,
    refuse_in_saga,
)
from ._ticket import Ticket, current_ticket

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

UndoFailure = Literal["halt", "continue"]

DEFAULT_MAX_RECOVERY_ATTEMPTS = 100

_names = Names("saga", SagaDefinitionError)


class Saga(Generic[P, R_co]):
    """
    A saga: what `@saga` makes of a function.

    It still is the DBOS workflow function of that name: `DBOS.start_workflow`, `SetWorkflowID`,
    queues, schedules and clients run it, as a saga.

    Attributes:
        name: What DBOS knows it by.
        is_async: Whether the function is `async def`.
    """

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str | None,
        timeout: Seconds | None,
        undo_failure: UndoFailure,
        on_terminate: OnTerminate,
        retriable: RetryPolicy | None,
        max_recovery_attempts: int | None,
    ) -> None:
        body = _saga_function(fn)
        name = check_name(
            body.__qualname__ if name is None else name, "The name of a saga", SagaDefinitionError
        )
        _check_options(undo_failure, on_terminate, max_recovery_attempts)
        limit = None if timeout is None else seconds(timeout, "timeout", error=SagaDefinitionError)
        _names.claim(name, body, given=name != body.__qualname__)
        policy = policy_or(retriable, "retriable", FOR_EVER, error=SagaDefinitionError)
        engine = Engine(name, body, is_async(body), undo_failure, limit, policy)
        workflow = _dbos.register(
            _workflow_function(engine), name, max_recovery_attempts, _arguments.rebuilder(body)
        )
        # DBOS looks for its own facts on whatever it is given as a workflow function.
        functools.update_wrapper(self, workflow)
        self.name = name
        self.is_async = engine.is_async
        setattr(self, ASYNC_MARK, self.is_async)
        self._workflow = workflow
        self._definition = Definition(name, body, inspect.signature(body), self.is_async, workflow)
        _catalog.add(name)
        _registry.add(name, Rules(on_terminate, max_recovery_attempts))

    def __repr__(self) -> str:
        return f"<saga {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Run the saga here and wait for its result.

        In an async saga's case: `await` it. A `SetWorkflowID` block gives it its ID.

        Durability:
            Once this has begun the saga comes to its end, whatever becomes of this process.

        Cancellation:
            An awaiter that is cancelled leaves the saga running.

        Raises:
            SagaOutcomeError: It ended without a result.
            SagaUsageError: An argument cannot be stored; a sync saga is called on a running event
                loop; `launch()` has not been called; or it is called in another saga.
        """
        refuse_in_saga(f"Saga {self.name!r}")
        if not self.is_async:
            refuse_on_loop(f"Saga {self.name!r}", "await run_async(...)")
        if _dbos.workflow_id() is not None:
            return cast(R_co, self._workflow(*args, **kwargs))
        check_startable(self._definition, args, kwargs)
        if self.is_async:
            return cast(R_co, self._call_async(args, kwargs))
        _catalog.publish()
        token = current_ticket.set(Ticket())
        try:
            return cast(R_co, self._workflow(*args, **kwargs))
        except _dbos.AwaitedEnd as error:
            return cast(R_co, SagaHandle[Any](error.workflow_id).result())
        finally:
            current_ticket.reset(token)

    async def _call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await publish_catalog()
        token = current_ticket.set(Ticket())
        try:
            handle = await _dbos.start_async(self._workflow, *args, **kwargs)
        finally:
            current_ticket.reset(token)
        return await SagaHandle[Any](handle.workflow_id, task=handle).result_async()

    def options(
        self,
        *,
        saga_id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: Seconds | None = None,
        deduplication_id: str | None = None,
        timeout: Seconds | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Starter[P, R_co]:
        """
        Say how the next start is to be made.

        Args:
            saga_id: The saga's ID, such as the order's number; default: a random one. Starting
                it again with the same arguments returns the same run.
            queue: Run it on whatever worker serves this DBOS queue, not in this process.
            priority: Its place in that queue: 1 first; default: before all those that have one.
            delay: Seconds, or a `timedelta`, before it may be taken from the queue.
            deduplication_id: While a workflow with it is in that queue or running from it, another
                is refused (`SagaConflictError`).
            timeout: Seconds, or a `timedelta`, after which this run turns round, instead of what
                its definition says.
            attributes: What to attach to the saga, as a JSON object.

        Raises:
            SagaUsageError: They make no sense.
        """
        return Starter(
            self._definition,
            StartOptions(saga_id, queue, priority, delay, deduplication_id, timeout, attributes),
        )

    @overload
    def start(
        self: Saga[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> SagaHandle[T]: ...
    @overload
    def start(self: Saga[P, T], *args: P.args, **kwargs: P.kwargs) -> SagaHandle[T]: ...

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """Start the saga in the background: see `Starter.start`."""
        return self.options().start(*args, **kwargs)

    @overload
    async def start_async(
        self: Saga[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> SagaHandle[T]: ...
    @overload
    async def start_async(self: Saga[P, T], *args: P.args, **kwargs: P.kwargs) -> SagaHandle[T]: ...

    async def start_async(self, *args: Any, **kwargs: Any) -> Any:
        """`start`, for use on an event loop."""
        return await self.options().start_async(*args, **kwargs)

    @overload
    def run(self: Saga[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self: Saga[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Start the saga and wait for its result: see `Starter.run`."""
        return self.options().run(*args, **kwargs)

    @overload
    async def run_async(
        self: Saga[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run_async(self: Saga[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """`run`, for use on an event loop."""
        return await self.options().run_async(*args, **kwargs)


def _check_options(undo_failure: Any, on_terminate: Any, max_recovery_attempts: Any) -> None:
    if undo_failure not in ("halt", "continue"):
        raise SagaDefinitionError(
            f"undo_failure is 'halt' (leave the older undos for later) or 'continue' (run them all "
            f"the same), not {undo_failure!r}."
        )
    if on_terminate not in ("compensate", "leave"):
        raise SagaDefinitionError(
            f"on_terminate is 'compensate' (undo what is done when DBOS has cancelled the saga) or "
            f"'leave' (leave it as it stands), not {on_terminate!r}."
        )
    if max_recovery_attempts is not None and (
        isinstance(max_recovery_attempts, bool)
        or not isinstance(max_recovery_attempts, int)
        or max_recovery_attempts < 1
    ):
        raise SagaDefinitionError(
            f"max_recovery_attempts must be a whole number of 1 or more, or None for no limit, not "
            f"{max_recovery_attempts!r}."
        )


def _workflow_function(engine: Engine) -> Callable[..., Any]:
    """What DBOS runs. Its source, for DBOS, is that of the saga: `functools.wraps`."""
    if engine.is_async:

        @functools.wraps(engine.body)
        async def on_loop(*args: Any, **kwargs: Any) -> Any:
            return await execute(engine, LoopHost(), args, kwargs)

        return on_loop

    @functools.wraps(engine.body)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        return drive(execute(engine, BlockingHost(), args, kwargs))

    return blocking


def _saga_function(fn: Any) -> Callable[..., Any]:
    if isinstance(fn, Saga):
        raise SagaDefinitionError(
            f"{fn.name!r} is a saga already: decorate the function once, and put all the options "
            f"into that one @saga(...)."
        )
    if isinstance(fn, Step):
        raise SagaDefinitionError(
            f"{fn.name!r} is a step. A function is either a step or a saga that calls steps."
        )
    if isinstance(fn, staticmethod | classmethod) or not inspect.isfunction(fn):
        raise SagaDefinitionError(f"@saga takes a function, and options by keyword, not {fn!r}.")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise SagaDefinitionError(
            f"{fn.__qualname__!r} is a generator. A saga is a plain or an async function."
        )
    place, _, _ = fn.__qualname__.rpartition(".")
    if place and not place.endswith("<locals>"):
        raise SagaDefinitionError(
            f"{fn.__qualname__!r} is a method. After a restart there is no instance to resume it "
            f"on: make it a function; its steps may be methods."
        )
    return fn


@overload
def saga(fn: Callable[P, R], /) -> Saga[P, R]: ...
@overload
def saga(
    *,
    name: str | None = None,
    timeout: Seconds | None = None,
    undo_failure: UndoFailure = "halt",
    on_terminate: OnTerminate = "compensate",
    retriable: RetryPolicy | None = None,
    max_recovery_attempts: int | None = DEFAULT_MAX_RECOVERY_ATTEMPTS,
) -> Callable[[Callable[P, R]], Saga[P, R]]: ...


def saga(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    timeout: Seconds | None = None,
    undo_failure: UndoFailure = "halt",
    on_terminate: OnTerminate = "compensate",
    retriable: RetryPolicy | None = None,
    max_recovery_attempts: int | None = DEFAULT_MAX_RECOVERY_ATTEMPTS,
) -> Any:
    """
    Make a function a saga: its completed steps are undone, newest first, when it fails.

    The function must be deterministic but for its steps, as any DBOS workflow: after a crash it
    runs again from its first line, and gets the recorded results of the steps it had done.

    Args:
        fn: The function: `def` or `async def`.
        name: What DBOS stores it under; default: its qualified name. Renaming a saga strands
            those in flight.
        timeout: Seconds, or a `timedelta`, from the moment a run could begin (its creation, and
            its delay); then it turns round and ends with `SagaTimeoutError`. The step that is
            running by then is not torn, unwinding has no limit, and time that the saga spends
            parked does not count. Default: no limit.
        undo_failure: After an undo that failed for good: "halt" leaves the older ones for later;
            "continue" runs them and reports all that failed.
        on_terminate: What to do with a run that was cancelled in DBOS (`DBOS.cancel_workflow`,
            its console or command line, `SetWorkflowTimeout`): "compensate" undoes what it has
            done; "leave" leaves that as it stands, and the saga is TERMINATED.
        retriable: How often to try a step past the `pivot()` that has no policy of its own;
            default: for ever. One that gives up there parks the saga.
        max_recovery_attempts: How often one run of it is taken up again after its process died.
            Beyond that it turns round, and a step that was running each time is not run again.

    Raises:
        SagaDefinitionError: The function or an option is wrong; raised right here.
    """
    options: dict[str, Any] = {
        "name": name,
        "timeout": timeout,
        "undo_failure": undo_failure,
        "on_terminate": on_terminate,
        "retriable": retriable,
        "max_recovery_attempts": max_recovery_attempts,
    }
    if fn is not None:
        return Saga(fn, **options)
    return lambda wrapped: Saga(wrapped, **options)
