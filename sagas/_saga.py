"""`@saga`: a workflow function whose steps are undone when it fails."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from steps._mode import drive, is_async
from steps._names import Names, check_name
from steps._policy import Seconds, seconds
from steps._step import Step
from steps.abc import current_recorder

from . import _arguments, _catalog, _codec, _dbos, _launch, _pool
from ._context import Ticket, current_ticket
from ._engine import Engine, execute
from ._errors import SagaConflictError, SagaDefinitionError, SagaUsageError
from ._handle import SagaHandle, refuse_on_loop
from ._marks import PREFIX

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

UndoFailure = Literal["halt", "continue"]

DEFAULT_MAX_RECOVERY_ATTEMPTS = 100

log = logging.getLogger("sagas")
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
        undo_failure: UndoFailure,
        max_recovery_attempts: int | None,
    ) -> None:
        self._fn: Callable[..., Any] = _saga_function(fn)
        self.name = check_name(
            self._fn.__qualname__ if name is None else name,
            "The name of a saga",
            SagaDefinitionError,
        )
        if undo_failure not in ("halt", "continue"):
            raise SagaDefinitionError(
                f"undo_failure is 'halt' (leave the older undos for later) or 'continue' (run "
                f"them all the same), not {undo_failure!r}."
            )
        if max_recovery_attempts is not None and (
            isinstance(max_recovery_attempts, bool)
            or not isinstance(max_recovery_attempts, int)
            or max_recovery_attempts < 1
        ):
            raise SagaDefinitionError(
                f"max_recovery_attempts must be a whole number of 1 or more, or None for no "
                f"limit, not {max_recovery_attempts!r}."
            )
        self.is_async = is_async(self._fn)
        self._signature = inspect.signature(self._fn)
        self._engine = Engine(self.name, self._fn, self.is_async, undo_failure)
        _names.claim(self.name, self._fn, given=name is not None)
        self._workflow = _dbos.register(
            _workflow_function(self._engine),
            self.name,
            max_recovery_attempts,
            _arguments.rebuilder(self._fn),
        )
        _catalog.add(self.name)
        # DBOS looks for its own facts on whatever it is given as a workflow function.
        functools.update_wrapper(self, self._workflow)

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
        self._check_place(f"Saga {self.name!r}", f"{self._fn.__name__}.run_async(...)")
        if _dbos.workflow_id() is not None:
            return cast(R_co, self._workflow(*args, **kwargs))
        self._check_arguments(args, kwargs)
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
        await _publish_catalog()
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
            attributes: What to attach to the saga, as a JSON object.

        Raises:
            SagaUsageError: They make no sense.
        """
        _check_text(saga_id, "saga_id")
        _check_text(queue, "queue")
        _check_text(deduplication_id, "deduplication_id")
        if queue is None:
            for what, value in (
                ("priority", priority),
                ("delay", delay),
                ("deduplication_id", deduplication_id),
            ):
                if value is not None:
                    raise SagaUsageError(f"{what}= is an option of a queue: give queue= too.")
        if priority is not None and (
            isinstance(priority, bool) or not isinstance(priority, int) or not 0 < priority < 2**31
        ):
            raise SagaUsageError(f"priority must be a whole number from 1, not {priority!r}.")
        return Starter(
            self,
            saga_id,
            queue,
            priority,
            None if delay is None else seconds(delay, "delay", zero=True, error=SagaUsageError),
            deduplication_id,
            _checked_attributes(attributes),
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

    def _check_place(self, what: str, instead: str) -> None:
        if _dbos.in_step():
            raise SagaUsageError(
                f"{what} was called in a step. A step is one action with one undo: call the saga "
                f"from application code."
            )
        if _is_saga_here():
            raise SagaUsageError(
                f"{what} was called in another saga. Sagas within sagas are not supported in this "
                f"version: call the steps, or start it from application code."
            )
        if not self.is_async:
            refuse_on_loop(what, f"await {instead}")

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _launch.launched() is None and not _dbos.is_launched():
            raise SagaUsageError(
                f"Saga {self.name!r} was started before launch(). Call sagas.launch() first, "
                f"after importing every module with sagas."
            )
        _arguments.check_storable(self._signature, self.name, _codec.current(), args, kwargs)


class Starter(Generic[P, R_co]):
    """A saga with options: what `Saga.options` returns. It may be used several times."""

    def __init__(
        self,
        saga: Saga[P, R_co],
        saga_id: str | None,
        queue: str | None,
        priority: int | None,
        delay: float | None,
        deduplication_id: str | None,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self._saga = saga
        self._saga_id = saga_id
        self._queue = queue
        self._priority = priority
        self._delay = delay
        self._deduplication_id = deduplication_id
        self._attributes = attributes

    @overload
    def start(
        self: Starter[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> SagaHandle[T]: ...
    @overload
    def start(self: Starter[P, T], *args: P.args, **kwargs: P.kwargs) -> SagaHandle[T]: ...

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """
        Start the saga in the background.

        Returns:
            A handle. Of a saga that exists already with this ID and these arguments: of that.

        Durability:
            When this returns, the saga is stored and comes to its end, whatever becomes of this
            process.

        Raises:
            SagaConflictError: The ID belongs to another saga or other arguments, or the
                deduplication ID to another workflow.
            SagaUsageError: See `Saga.__call__`; or no application has registered the queue.
        """
        saga = self._saga
        saga._check_place(f"Saga {saga.name!r}", f"{saga._fn.__name__}.start_async(...)")
        refuse_on_loop(f"{saga.name}.start()", "await start_async(...)")
        saga._check_arguments(args, kwargs)
        if self._queue is None and saga.is_async:
            return _dbos.on_dbos_loop(lambda: self._begin_for_thread(args, kwargs))
        return self._start_blocking(args, kwargs)

    @overload
    async def start_async(
        self: Starter[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> SagaHandle[T]: ...
    @overload
    async def start_async(
        self: Starter[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> SagaHandle[T]: ...

    async def start_async(self, *args: Any, **kwargs: Any) -> Any:
        """`start`, for use on an event loop."""
        saga = self._saga
        if _is_saga_here() or _dbos.in_step():
            saga._check_place(f"Saga {saga.name!r}", "")
        saga._check_arguments(args, kwargs)
        if self._queue is None and saga.is_async:
            return await self._begin_on_loop(args, kwargs)
        return await asyncio.to_thread(self._start_blocking, args, kwargs)

    @overload
    def run(self: Starter[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self: Starter[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """
        Start the saga and wait for its result.

        Raises:
            SagaOutcomeError: It ended without a result.
            SagaConflictError: See `start`.
            SagaUsageError: See `start`.
        """
        return self.start(*args, **kwargs).result()

    @overload
    async def run_async(
        self: Starter[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run_async(self: Starter[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """`run`, for use on an event loop. An awaiter that is cancelled leaves the saga running."""
        handle = await self.start_async(*args, **kwargs)
        return await handle.result_async()

    def _start_blocking(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SagaHandle[Any]:
        _catalog.publish()
        saga_id = self._saga_id or str(uuid.uuid4())
        try:
            if self._queue is not None:
                self._enqueue(saga_id, args, kwargs)
                return SagaHandle(saga_id)
            return self._begin_on_thread(saga_id, args, kwargs)
        except _dbos.InUse:
            return self._attach(saga_id, args, kwargs)
        except _dbos.Deduplicated as error:
            raise SagaConflictError(
                f"Queue {self._queue!r} holds a workflow with the deduplication ID "
                f"{self._deduplication_id!r} already. Nothing was started."
            ) from error

    def _enqueue(self, saga_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._queue is not None
        if not _dbos.outside(_dbos.queue_exists, self._queue):
            raise SagaUsageError(
                f"No application has registered the queue {self._queue!r}, so no worker would "
                f"ever run the saga. Register it once, after launch(): "
                f"DBOS.register_queue({self._queue!r})."
            )
        with _dbos.starting(saga_id, self._attributes):
            _dbos.enqueue(
                self._queue,
                self._saga._workflow,
                args,
                kwargs,
                priority=self._priority,
                delay=self._delay,
                deduplication_id=self._deduplication_id,
            )

    def _begin_on_thread(
        self, saga_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        # DBOS.start_workflow would lose the ticket, as it takes no context to its thread.
        ticket = Ticket()

        def run() -> Any:
            current_ticket.set(ticket)
            with _dbos.starting(saga_id, self._attributes):
                return self._saga._workflow(*args, **kwargs)

        future = _pool.submit(contextvars.copy_context().run, run)
        future.add_done_callback(ticket.void)
        if not ticket.wait():
            future.result()  # why it was not begun
        return SagaHandle(saga_id, future=future)

    async def _begin_on_loop(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        await _publish_catalog()
        saga_id = self._saga_id or str(uuid.uuid4())
        token = current_ticket.set(Ticket())
        try:
            with _dbos.starting(saga_id, self._attributes):
                task = await _dbos.start_async(self._saga._workflow, *args, **kwargs)
            return SagaHandle(saga_id, task=task)
        except _dbos.InUse:
            return await asyncio.to_thread(self._attach, saga_id, args, kwargs)
        finally:
            current_ticket.reset(token)

    async def _begin_for_thread(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        """On DBOS's loop, for a caller on a thread: its handle must not need the loop."""
        handle = await self._begin_on_loop(args, kwargs)
        return handle.for_threads()

    def _attach(
        self, saga_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        """A handle on the saga that has this ID, if it is the one that is meant."""
        row = _dbos.outside(_dbos.status, saga_id)
        saga = self._saga
        if row is None or row.name != saga.name:
            other = "a workflow that is gone" if row is None else f"{row.name!r}"
            raise SagaConflictError(
                f"The ID {saga_id!r} belongs to {other}, not to saga {saga.name!r}. Nothing was "
                f"started: choose another saga_id."
            )
        same = _arguments.same_arguments(saga._fn, _codec.current(), (args, kwargs), row.input)
        if same is False:
            raise SagaConflictError(
                f"Saga {saga_id!r} ({saga.name}) was started with other arguments. Nothing was "
                f"started: the same ID with the same arguments returns the same run; another "
                f"run needs another saga_id."
            )
        if same is None:
            log.warning(
                "Saga %s (%s) exists, and whether its arguments are the same cannot be told, as "
                "their types do not compare; the existing run is returned.",
                saga_id,
                saga.name,
            )
        return SagaHandle(saga_id)


def _is_saga_here() -> bool:
    """Whether the body of a saga is running here, outside its steps."""
    recorder = current_recorder.get()
    return recorder is not None and recorder.saga_id == _dbos.workflow_id()


async def _publish_catalog() -> None:
    if _catalog.needs_publishing():
        await asyncio.to_thread(_catalog.publish)


def _workflow_function(engine: Engine) -> Callable[..., Any]:
    """What DBOS runs. Its source, for DBOS, is that of the saga: `functools.wraps`."""
    if engine.is_async:

        @functools.wraps(engine.body)
        async def on_loop(*args: Any, **kwargs: Any) -> Any:
            return await execute(engine, _dbos.LoopHost(), args, kwargs)

        return on_loop

    @functools.wraps(engine.body)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        return drive(execute(engine, _dbos.BlockingHost(), args, kwargs))

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


def _check_text(value: Any, what: str) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise SagaUsageError(f"{what} must be text that is not blank, not {value!r}.")


def _checked_attributes(attributes: Any) -> dict[str, Any] | None:
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping) or not all(isinstance(k, str) for k in attributes):
        raise SagaUsageError(f"attributes must be a mapping with text keys, not {attributes!r}.")
    ours = next((k for k in attributes if k.startswith(PREFIX)), None)
    if ours is not None:
        raise SagaUsageError(f"The attribute {ours!r} is reserved: keys may not begin {PREFIX!r}.")
    try:
        json.dumps(dict(attributes), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SagaUsageError(f"attributes must be a JSON object: {error}.") from error
    return dict(attributes)


@overload
def saga(fn: Callable[P, R], /) -> Saga[P, R]: ...
@overload
def saga(
    *,
    name: str | None = None,
    undo_failure: UndoFailure = "halt",
    max_recovery_attempts: int | None = DEFAULT_MAX_RECOVERY_ATTEMPTS,
) -> Callable[[Callable[P, R]], Saga[P, R]]: ...


def saga(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    undo_failure: UndoFailure = "halt",
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
        undo_failure: After an undo that failed for good: "halt" leaves the older ones for later;
            "continue" runs them and reports all that failed.
        max_recovery_attempts: How often DBOS recovers one run of it before it gives up.

    Raises:
        SagaDefinitionError: The function or an option is wrong; raised right here.
    """
    options: dict[str, Any] = {
        "name": name,
        "undo_failure": undo_failure,
        "max_recovery_attempts": max_recovery_attempts,
    }
    if fn is not None:
        return Saga(fn, **options)
    return lambda wrapped: Saga(wrapped, **options)
