"""The library as a world of programs: their steps, their sagas, and what really happened."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dbos import DBOS

import sagas
from sagas import SagaHandle
from steps import NonRetryableError, RetryPolicy, idempotency_key, step
from steps._mode import drive

from . import programs
from .crash import Crasher, run_to_its_end
from .ledger import Entry, Kind
from .model import Prediction, push_name
from .programs import NAMES, Boom, Call, Program, Push

ALWAYS = RetryPolicy(max_attempts=None, first_delay=0.001, max_delay=0.001)
PAUSES = (0.0, 0.0, 0.0005, 0.003)
"""Seconds that a step or an undo may take."""


class Again(Exception):
    """An attempt fails, and may be repeated at once: also where the policy would wait."""

    retry_after = 0.001


@dataclass(slots=True)
class Stage:
    """What happens outside DBOS while one saga runs."""

    crasher: Crasher
    random: random.Random
    entries: list[Entry] = field(default_factory=list)
    tries: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, kind: Kind, name: str) -> int:
        """An attempt begins; how many came before it."""
        self.crasher.point(f"{kind} {name} begins")
        key = idempotency_key()
        with self.lock:
            self.entries.append(Entry(kind, name, key, done=False))
            self.tries[kind, key] += 1
            return self.tries[kind, key] - 1

    def pause(self) -> float:
        """How long it takes."""
        with self.lock:
            return self.random.choice(PAUSES)

    def act(self, kind: Kind, name: str) -> None:
        """Its effect takes place."""
        self.crasher.point(f"{kind} {name} is about to take effect")
        with self.lock:
            self.entries.append(Entry(kind, name, idempotency_key(), done=True))
        self.crasher.point(f"{kind} {name} has taken effect")


_stages: dict[str, Stage] = {}


def _stage() -> Stage:
    return _stages[sagas.current().saga_id]


def _check_attempt(kind: Kind, before: int, flaky: int, *, fails: bool) -> None:
    if before < flaky:
        raise Again
    if fails:
        raise NonRetryableError("never") if kind == "undo" else Boom("it fails")


def _undo(result: str, call: Call) -> None:
    stage = _stage()
    before = stage.begin("undo", result)
    _check_attempt("undo", before, call.undo_flaky, fails=call.undo_fails)
    stage.act("undo", result)


async def _undo_async(result: str, call: Call) -> None:
    stage = _stage()
    before = stage.begin("undo", result)
    await asyncio.sleep(stage.pause())
    _check_attempt("undo", before, call.undo_flaky, fails=call.undo_fails)
    stage.act("undo", result)


_RETRY = RetryPolicy(max_attempts=4, first_delay=0.001, max_delay=0.001, give_up_on=(Boom,))


def _make_sync(name: str, undo: Callable[..., None] | None) -> Any:
    @step(name=name, undo=undo, retry=_RETRY, undo_retry=ALWAYS)
    def act(call: Call) -> str:
        stage = _stage()
        before = stage.begin("step", name)
        _check_attempt("step", before, call.flaky, fails=call.fails)
        stage.act("step", name)
        return name

    return act


def _make_async(name: str, undo: Callable[..., Any] | None) -> Any:
    @step(name=f"async.{name}", undo=undo, retry=_RETRY, undo_retry=ALWAYS)
    async def act(call: Call) -> str:
        stage = _stage()
        before = stage.begin("step", name)
        await asyncio.sleep(stage.pause())
        _check_attempt("step", before, call.flaky, fails=call.fails)
        stage.act("step", name)
        return name

    return act


SYNC = {
    (i, undo): _make_sync(f"prog.{i}" + ("" if undo else ".final"), _undo if undo else None)
    for i in range(NAMES)
    for undo in (True, False)
}
ASYNC = {
    (i, undo): _make_async(f"prog.{i}" + ("" if undo else ".final"), _undo_async if undo else None)
    for i in range(NAMES)
    for undo in (True, False)
}


def _pushed(name: str) -> Callable[[Push], None]:
    def undo(push: Push) -> None:
        stage = _stage()
        before = stage.begin("undo", name)
        _check_attempt("undo", before, push.undo_flaky, fails=False)
        stage.act("undo", name)

    undo.__qualname__ = name
    return undo


PUSHED = {i: _pushed(push_name(Push(i))) for i in range(NAMES)}


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class _Library:
    """The library as a `World`."""

    def __init__(self, steps: dict[tuple[int, bool], Any]) -> None:
        self._steps = steps
        self._crasher = _stage().crasher
        self._crasher.enter()
        self._home = _current_task()

    def call(self, node: Call) -> Any:
        return self._steps[node.name, node.undo](node)

    def push(self, node: Push) -> None:
        sagas.add_compensation(PUSHED[node.name], node)

    def between(self) -> None:
        if _current_task() is self._home:  # in a branch, the body might handle it as an error
            self._crasher.point("between two nodes")


def _sync_body(program: Program) -> None:
    drive(programs.run(program.block, _Library(SYNC)))


async def _async_body(program: Program) -> None:
    await programs.run(program.block, _Library(ASYNC))


@sagas.saga(name="program-sync-halt")
def sync_halt(program: Program) -> None:
    _sync_body(program)


@sagas.saga(name="program-sync-continue", undo_failure="continue")
def sync_continue(program: Program) -> None:
    _sync_body(program)


@sagas.saga(name="program-async-halt")
async def async_halt(program: Program) -> None:
    await _async_body(program)


@sagas.saga(name="program-async-continue", undo_failure="continue")
async def async_continue(program: Program) -> None:
    await _async_body(program)


_SAGAS: dict[tuple[bool, str], Any] = {
    (False, "halt"): sync_halt,
    (False, "continue"): sync_continue,
    (True, "halt"): async_halt,
    (True, "continue"): async_continue,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be seen of a saga that has ended."""

    saga_id: str
    status: str
    rows: tuple[tuple[int, str, bool], ...]
    entries: tuple[Entry, ...]
    undone: tuple[int, ...] | None
    """As its error names them; None where it completed."""
    failed_step: int | None
    reason: str | None
    crashes: tuple[str, ...]


def perform(program: Program, schedule: tuple[int, ...], seed: int, *, on_loop: bool) -> Outcome:
    """
    Run a program as a saga, to its end.

    Args:
        program: The saga's body.
        schedule: Where it crashes: see `Crasher`.
        seed: Decides how long each step takes.
        on_loop: Whether it is an async saga.
    """
    saga_id = uuid.uuid4().hex
    stage = _stages[saga_id] = Stage(Crasher(schedule), random.Random(seed))
    try:
        saga = _SAGAS[on_loop, program.undo_failure]
        handle: SagaHandle[object] = saga.options(saga_id=saga_id).start(program)
        status = run_to_its_end(handle, stage.crasher)
        state = handle.state()
        rows = DBOS.list_workflow_steps(saga_id)
        return Outcome(
            saga_id=saga_id,
            status=status.value,
            rows=tuple(
                (r["function_id"], r["function_name"].replace("async.", ""), r["error"] is not None)
                for r in rows
            ),
            entries=tuple(stage.entries),
            undone=None if state.error is None else tuple(u.step_id for u in state.error.undone),
            failed_step=None if state.failure is None else state.failure.step_id,
            reason=state.reason,
            crashes=tuple(stage.crasher.crashes),
        )
    finally:
        del _stages[saga_id]


def differences(outcome: Outcome, expected: Prediction) -> list[str]:
    """What an outcome has that the promises do not allow."""
    wrong: list[str] = []

    def check(what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            wrong.append(f"{what}: {seen}, not {wanted}")

    def step_of(key: str) -> int:
        return int(key.removeprefix(f"{outcome.saga_id}:"))

    done: list[int] = []
    undone: list[int] = []
    for entry in outcome.entries:
        kept = done if entry.kind == "step" else undone
        if entry.done and step_of(entry.key) not in kept:
            kept.append(step_of(entry.key))
    undo_rows = [row for row in outcome.rows if row[1].startswith("undo:")]
    recorded = [int(name.split(":")[1]) for _, name, failed in undo_rows if not failed]
    tried = [int(name.split(":")[1]) for _, name, _ in undo_rows]

    check("status", outcome.status, expected.status)
    check("undos in the history, newest first and once", tried, sorted(set(tried), reverse=True))
    check("undos in the ledger", undone, recorded)
    check("undos in the outcome", list(outcome.undone or ()), recorded)
    completed = {i for i, name, bad in outcome.rows if not bad and not name.startswith("undo:")}
    check("effects", set(done), completed)
    if not expected.loose:
        check("history", outcome.rows, expected.rows)
        check("undone", tuple(undone), expected.undone)
        check("what stands", frozenset(set(done) - set(undone)), expected.standing)
        check("the step to blame", outcome.failed_step, expected.failed_step)
    elif expected.status == "FAILED":
        left = {i for i in completed - set(undone) if not _is_final(outcome, i)}
        check("what stands", left, set())
    return wrong


def _is_final(outcome: Outcome, step_id: int) -> bool:
    """Whether a step has no undo."""
    return any(i == step_id and name.endswith(".final") for i, name, _ in outcome.rows)
