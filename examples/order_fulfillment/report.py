"""The demo's output: tables made of plain values. Pure, but for what `Paint` is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sagas import SagaState, SagaStatus, StepRecord, StepStatus

from .audit import Check
from .books import Books
from .lives import Life, caught
from .orders import Order, amount

Lines = list[str]

_COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33"}
_OF_STATUS = {SagaStatus.COMPLETED: "green", SagaStatus.FAILED: "yellow"}


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours for a terminal; for anything else plain text."""

    is_terminal: bool

    def __call__(self, text: str, colour: str) -> str:
        """`text`, in colour where there are colours."""
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if self.is_terminal and text else text


def heading(text: str, paint: Paint) -> Lines:
    """A heading with a blank line above."""
    return ["", paint(text, "bold")]


def order_table(
    orders: Sequence[Order], states: Mapping[str, SagaState], lives: Sequence[Life], paint: Paint
) -> Lines:
    """One line per order: what became of it, and what it was doing when its worker was killed."""
    head = (
        f"{'order':<6} {'items':<19} {'EUR':>8}  {'outcome':<9}  {'when killed':<16}  why it failed"
    )
    lines = [paint(head, "dim")]
    for order in orders:
        state = states[order.order_id]
        items = ", ".join(f"{line.quantity} {line.sku}" for line in order.lines)
        outcome = paint(f"{state.status:<9}", _OF_STATUS.get(state.status, "red"))
        killed = ", ".join(caught(order.order_id, lives))
        line = f"{order.order_id:<6} {items:<19} {amount(order.cents):>8}  {outcome}  {killed:<16}"
        lines.append(f"{line}  {_why(state)}".rstrip())
    return lines


def most_telling(states: Mapping[str, SagaState], lives: Sequence[Life]) -> str:
    """The order whose saga was killed most often while it was undoing; of several the longest."""

    def drama(order_id: str) -> tuple[int, bool, int, int]:
        kills, state = caught(order_id, lives), states[order_id]
        return kills.count("undoing"), state.failure is not None, len(kills), len(state.steps)

    return max(states, key=drama)


def timeline(state: SagaState, lives: Sequence[Life], books: Books, paint: Paint) -> Lines:
    """What happened to one saga, in the order of time."""
    repeated = {deed.key for deed in books.deeds if deed.repeats}
    events = [e for step in state.steps for e in _of_step(step, state, repeated)]
    if not events:
        return []
    begin = min(moment for moment, *_ in events)
    end = max(moment for moment, *_ in events)
    if state.failure is not None:
        # A failure of the saga's own body has no time; it came after the last step had ended.
        last = max(s.completed_at for s in state.steps if s.completed_at is not None)
        events.append((last + timedelta(microseconds=1), "turns round", _why(state), "yellow"))
    for life in lives:
        if begin < life.started_at < end:
            events.append((life.started_at, f"worker {life.number} starts", "", "dim"))
        if life.killed_at is not None and begin < life.killed_at < end:
            events.append((life.killed_at, f"worker {life.number} is killed", "", "red"))
    lines = []
    for moment, what, detail, colour in sorted(events, key=lambda event: event[0]):
        after = (moment - begin).total_seconds()
        lines.append(f"{after:8.3f} s  {paint(f'{what:<26}', colour)}  {detail}".rstrip())
    return lines


_Event = tuple[datetime, str, str, str]


def _of_step(step: StepRecord, state: SagaState, repeated: set[str]) -> list[_Event]:
    events: list[_Event] = []
    again = f"{state.saga_id}:{step.step_id}" in repeated
    note = "  (asked for again, took effect once)" if again else ""
    if step.executed_at is not None and step.completed_at is not None:
        took = f"{(step.completed_at - step.executed_at).total_seconds() * 1000:.0f} ms"
        failed = step.status is StepStatus.FAILED
        detail = "failed" if failed else f"done in {took}"
        if step.compensated_at is None:
            detail += note
        events.append(
            (step.executed_at, f"{step.step_id} {step.name}", detail, "red" if failed else "green")
        )
    if step.compensated_at is not None:
        events.append(
            (step.compensated_at, f"{step.step_id} {step.name}", f"undone{note}", "yellow")
        )
    return events


def verdict(checks: Sequence[Check], paint: Paint) -> Lines:
    """The checks, one a line, and under each what is wrong."""
    lines = []
    for check in checks:
        mark = paint("WRONG", "red") if check.problems else paint("ok   ", "green")
        lines.append(f"{mark}  {check.name:<14} {check.summary}")
        lines += [paint(f"       {problem}", "red") for problem in check.problems]
    return lines


def _why(state: SagaState) -> str:
    if state.reason is not None:
        return state.reason
    failure = state.failure
    return "" if failure is None else f"{failure.step or 'the saga'}: {failure.message}"
