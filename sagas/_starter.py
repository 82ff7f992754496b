"""Starting a saga: with options, on a thread, a loop or a queue, once for each ID."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from steps._policy import Seconds, seconds
from steps.abc import current_key, current_recorder

from . import _arguments, _catalog, _codec, _dbos, _launch, _pool
from ._errors import SagaConflictError, SagaUsageError
from ._handle import SagaHandle, refuse_on_loop
from ._marks import PREFIX, TIMEOUT, is_storable_text
from ._ticket import Ticket, current_ticket

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

log = logging.getLogger("sagas")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a start needs to know of a saga."""

    name: str
    fn: Callable[..., Any]
    """The user's function."""
    signature: inspect.Signature
    is_async: bool
    workflow: Callable[..., Any]
    """The DBOS workflow that runs it."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """
    How a saga is to be started; see `Saga.options`.

    Raises:
        SagaUsageError: They make no sense.
    """

    saga_id: str | None = None
    queue: str | None = None
    priority: int | None = None
    delay: Seconds | None = None
    deduplication_id: str | None = None
    timeout: Seconds | None = None
    attributes: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for what in ("saga_id", "queue", "deduplication_id"):
            _check_text(getattr(self, what), what)
        if self.queue is None:
            for what in ("priority", "delay", "deduplication_id"):
                if getattr(self, what) is not None:
                    raise SagaUsageError(f"{what}= is an option of a queue: give queue= too.")
        if self.priority is not None and (
            isinstance(self.priority, bool)
            or not isinstance(self.priority, int)
            or not 0 < self.priority < 2**31
        ):
            raise SagaUsageError(f"priority must be a whole number from 1, not {self.priority!r}.")
        _ = self.delay_seconds, self.timeout_seconds
        object.__setattr__(self, "attributes", _checked_attributes(self.attributes))

    @property
    def delay_seconds(self) -> float | None:
        """The delay in seconds."""
        if self.delay is None:
            return None
        return seconds(self.delay, "delay", zero=True, error=SagaUsageError)

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit in seconds."""
        if self.timeout is None:
            return None
        return seconds(self.timeout, "timeout", error=SagaUsageError)

    @property
    def stored(self) -> Mapping[str, Any] | None:
        """The attributes to start with: the user's, and what a later execution must know."""
        if self.timeout is None:
            return self.attributes
        return {**(self.attributes or {}), TIMEOUT: self.timeout_seconds}


def _check_text(value: Any, what: str) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value.strip():
        raise SagaUsageError(f"{what} must be text that is not blank, not {value!r}.")
    if not is_storable_text(value):
        raise SagaUsageError(
            f"{what} must be text that a database can store, without NUL or half a character, "
            f"not {value!r}."
        )


def _checked_attributes(attributes: Any) -> dict[str, Any] | None:
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping) or not all(isinstance(k, str) for k in attributes):
        raise SagaUsageError(f"attributes must be a mapping with text keys, not {attributes!r}.")
    ours = next((k for k in attributes if k.startswith(PREFIX)), None)
    if ours is not None:
        raise SagaUsageError(f"The attribute {ours!r} is reserved: keys may not begin {PREFIX!r}.")
    try:
        text = json.dumps(dict(attributes), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise SagaUsageError(f"attributes must be a JSON object: {error}.") from error
    if "\\u0000" in text or not is_storable_text(text):
        raise SagaUsageError(
            f"attributes must hold text that a database can store, without NUL or half a "
            f"character, not {attributes!r}."
        )
    return dict(attributes)


def check_startable(saga: Definition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """
    See that a saga can be started with these arguments, before anything is.

    Raises:
        SagaUsageError: It cannot; the message says why.
        TypeError: They do not fit its parameters.
    """
    if _launch.launched() is None and not _dbos.is_launched():
        raise SagaUsageError(
            f"Saga {saga.name!r} was started before launch(), or after shutdown(). Call "
            f"sagas.launch() first, after importing every module with sagas."
        )
    _arguments.check_storable(saga.signature, saga.name, _codec.current(), args, kwargs)


def _is_saga_here() -> bool:
    """Whether the body of a saga is running here, outside its steps."""
    recorder = current_recorder.get()
    return recorder is not None and recorder.saga_id == _dbos.workflow_id()


def refuse_in_saga(what: str) -> None:
    """
    Refuse to start a saga in a step, or in another saga.

    Raises:
        SagaUsageError: It is one of these that is running here.
    """
    # A body with a time limit runs where DBOS knows of no step.
    in_ours = current_recorder.get() is not None and current_key.get() is not None
    if in_ours or _dbos.in_step():
        raise SagaUsageError(
            f"{what} was called in a step. A step is one action with one undo: call the saga from "
            f"application code."
        )
    if _is_saga_here():
        raise SagaUsageError(
            f"{what} was called in another saga. Sagas within sagas are not supported in this "
            f"version: call the steps, or start it from application code."
        )


async def publish_catalog() -> None:
    """Keep the names of the sagas, on an event loop."""
    if _catalog.needs_publishing():
        await asyncio.to_thread(_catalog.publish)


class Starter(Generic[P, R_co]):
    """A saga with options: what `Saga.options` returns. It may be used several times."""

    def __init__(self, saga: Definition, options: StartOptions) -> None:
        self._saga = saga
        self._options = options

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
        self._refuse_in_workflow()
        refuse_on_loop(f"{saga.name}.start()", "await start_async(...)")
        check_startable(saga, args, kwargs)
        if self._options.queue is None and saga.is_async:
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
        self._refuse_in_workflow()
        check_startable(saga, args, kwargs)
        if self._options.queue is None and saga.is_async:
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
        refuse_on_loop(f"{self._saga.name}.run()", "await run_async(...)")
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

    def _refuse_in_workflow(self) -> None:
        what = f"Saga {self._saga.name!r}"
        refuse_in_saga(what)
        if _dbos.workflow_id() is not None:
            raise SagaUsageError(
                f"{what} was started in a DBOS workflow by a method of ours, which DBOS would not "
                f"record. Call it there, or use DBOS.start_workflow."
            )

    def _start_blocking(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SagaHandle[Any]:
        _catalog.publish()
        saga_id = self._options.saga_id or str(uuid.uuid4())
        try:
            if self._options.queue is not None:
                self._enqueue(self._options.queue, saga_id, args, kwargs)
                return SagaHandle(saga_id)
            return self._begin_on_thread(saga_id, args, kwargs)
        except _dbos.InUse:
            return self._attach(saga_id, args, kwargs)
        except _dbos.Deduplicated as error:
            raise SagaConflictError(
                f"Queue {self._options.queue!r} holds a workflow with the deduplication ID "
                f"{self._options.deduplication_id!r} already. Nothing was started."
            ) from error

    def _enqueue(
        self, queue: str, saga_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not _dbos.queue_exists(queue):
            raise SagaUsageError(
                f"No application has registered the queue {queue!r}, so no worker would ever run "
                f"the saga. Register it once, after launch(): DBOS.register_queue({queue!r})."
            )
        with _dbos.starting(saga_id, self._options.stored):
            _dbos.enqueue(
                queue,
                self._saga.workflow,
                args,
                kwargs,
                priority=self._options.priority,
                delay=self._options.delay_seconds,
                deduplication_id=self._options.deduplication_id,
            )

    def _begin_on_thread(
        self, saga_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        # DBOS.start_workflow would lose the ticket, as it takes no context to its thread.
        ticket = Ticket(self._options.timeout_seconds)

        def run() -> Any:
            current_ticket.set(ticket)
            with _dbos.starting(saga_id, self._options.stored):
                return self._saga.workflow(*args, **kwargs)

        future = _pool.submit(contextvars.copy_context().run, run)
        future.add_done_callback(ticket.void)
        if not ticket.wait():
            future.result()  # why it was not begun
        return SagaHandle(saga_id, future=future)

    async def _begin_on_loop(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SagaHandle[Any]:
        await publish_catalog()
        saga_id = self._options.saga_id or str(uuid.uuid4())
        token = current_ticket.set(Ticket(self._options.timeout_seconds))
        try:
            with _dbos.starting(saga_id, self._options.stored):
                task = await _dbos.start_async(self._saga.workflow, *args, **kwargs)
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
        same = _arguments.same_arguments(saga.fn, _codec.current(), (args, kwargs), row.input)
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
