"""
Unknown outcomes: what is run, asked and undone of a step of which nothing says how it ended.

The step has two effects to tell apart: "begin" is written before, "charge" after its effect took
place under its key. Its undo and its probe go by that key.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dbos import DBOS

import sagas
from sagas import (
    SagaCancelledError,
    SagaFailedError,
    SagaHandle,
    SagaParkedError,
    SagaStatus,
    SagaTimeoutError,
    StepStatus,
    Supervision,
    _dbos,
    _kept,
    _running,
    saga,
)
from sagas._marks import TIMEOUT
from sagas._stop import Stop, Why
from steps import (
    NOT_DONE,
    NonRetryableError,
    OutcomeUnknownError,
    RetryPolicy,
    StepFailedError,
    idempotency_key,
    step,
)

from .support import UNWATCHED, Ledger, has_left, names, resume, status, stop_mark, take_up, until

LEDGER = Ledger()
DONE: set[str] = set()
"""The keys under which there is a charge."""
SWITCH: dict[str, Any] = {}
KINDS = ("sync", "async")
POLICIES = ("probe", "attempted", "completed", "none")


@pytest.fixture(scope="module")
def supervision() -> Supervision:
    return UNWATCHED


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    LEDGER.clear()
    LEDGER.died.clear()
    DONE.clear()
    SWITCH.clear()
    SWITCH["gate"] = threading.Event()
    yield
    SWITCH["gate"].set()


def undo(result: str | None) -> None:
    DONE.discard(idempotency_key())
    LEDGER.write(f"undo {result}")


def act_body(name: str) -> str:
    LEDGER.write(name)
    if hook := SWITCH.pop(f"in {name}", None):
        hook()
    return name


def charge_body(name: str) -> str:
    LEDGER.write("begin")
    if hook := SWITCH.get("before"):
        hook()
    DONE.add(idempotency_key())
    LEDGER.write("charge")
    if hook := SWITCH.get("after"):
        hook()
    return "paid"


def find(name: str) -> Any:
    LEDGER.write("probe")
    if hook := SWITCH.get("probe"):
        hook()
    return "found" if idempotency_key() in DONE else NOT_DONE


async def find_async(name: str) -> Any:
    return find(name)


RETRY = RetryPolicy(max_attempts=2, first_delay=0.1, jitter=0)
PROBING = RetryPolicy(max_attempts=3, first_delay=0.15, backoff=1, jitter=0)
OPTIONS: dict[str, dict[str, Any]] = {
    "probe": {"undo": undo, "probe": find, "undo_retry": PROBING},
    "attempted": {"undo": undo, "undo_when": "attempted"},
    "completed": {"undo": undo, "undo_when": "completed"},
    "none": {},
}


@step(undo=undo)
def act(name: str) -> str:
    return act_body(name)


@step(undo=undo)
async def act_async(name: str) -> str:
    return act_body(name)


def charging(policy: str, kind: str, retry: RetryPolicy | None = None) -> Any:
    label = f"charge-{policy}-{kind}{'-again' if retry else ''}"
    options = {**OPTIONS[policy], "name": label, "retry": retry}
    if kind == "sync":
        return step(**options)(lambda name: charge_body(name))  # noqa: PLW0108 - a function of its own each
    if policy == "probe":
        options["probe"] = find_async

    async def charge(name: str) -> str:
        return charge_body(name)

    return step(**options)(charge)


CHARGES = {
    (policy, kind, again): charging(policy, kind, RETRY if again else None)
    for policy in POLICIES
    for kind in KINDS
    for again in (False, True)
}


@saga
def buys(policy: str, again: bool) -> str:
    act("a")
    result = CHARGES[policy, "sync", again]("x")
    act("b")
    return str(result)


@saga
async def buys_async(policy: str, again: bool) -> str:
    await act_async("a")
    result = await CHARGES[policy, "async", again]("x")
    await act_async("b")
    return str(result)


_numbers = itertools.count()


def new(policy: str, kind: str, *, again: bool = False, **options: Any) -> SagaHandle[str]:
    saga_id = f"{policy}-{kind}-{next(_numbers)}"
    return (
        (buys if kind == "sync" else buys_async)
        .options(saga_id=saga_id, **options)
        .start(policy, again)
    )


def crashed(policy: str, kind: str, at: str, *, again: bool = False) -> SagaHandle[str]:
    """A saga whose execution died at an entry; the ledger tells from then on."""
    LEDGER.crash_at(at)
    handle = new(policy, kind, again=again)
    until(lambda: LEDGER.died and has_left(handle.saga_id))
    LEDGER.clear()
    LEDGER.died.clear()
    return SagaHandle(handle.saga_id)  # the other one tells how its execution ended


MARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "cancel": lambda: stop_mark(Why.CANCEL),
    "deadline": lambda: {TIMEOUT: 0.001},
    "dbos": lambda: stop_mark(Why.DBOS_CANCEL),
    "dead letter": lambda: stop_mark(Why.DEAD_LETTER),
}
RUN, UNDONE_A = ["begin", "charge"], ["undo a"]
STOPPED: dict[tuple[str, str], list[str]] = {
    ("probe", "begin"): ["probe"],
    ("probe", "charge"): ["probe", "undo found"],
    ("attempted", "begin"): ["undo None"],
    ("attempted", "charge"): ["undo None"],
    ("completed", "begin"): [*RUN, "undo paid"],
    ("completed", "charge"): [*RUN, "undo paid"],
    ("none", "begin"): [],
    ("none", "charge"): [],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", ["cancel", "deadline", "dbos"])
@pytest.mark.parametrize("at", ["begin", "charge"])
@pytest.mark.parametrize("policy", POLICIES)
def test_in_doubt_and_stopped(
    shared_app: sagas.Launched, policy: str, at: str, stop: str, kind: str
) -> None:
    """A saga that died in a step, and is stopped when it comes back, knows what to undo."""
    handle = crashed(policy, kind, at)
    take_up(handle.saga_id, MARKS[stop]())
    assert [*STOPPED[policy, at], *UNDONE_A] == LEDGER
    assert len(DONE) == (1 if (policy, at) == ("none", "charge") else 0)
    with pytest.raises(SagaTimeoutError if stop == "deadline" else SagaCancelledError):
        handle.result()
    assert handle.status() is SagaStatus.FAILED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", ["begin", "charge"])
@pytest.mark.parametrize("policy", POLICIES)
def test_in_doubt_and_not_stopped(
    shared_app: sagas.Launched, policy: str, at: str, kind: str
) -> None:
    """A saga that died in a step goes on: a probe that finds its effect spares a second run."""
    handle = crashed(policy, kind, at)
    take_up(handle.saga_id)
    asked = ["probe"] if policy == "probe" else []
    found = policy == "probe" and at == "charge"
    assert [*asked, *([] if found else RUN), "b"] == LEDGER
    assert handle.result() == ("found" if found else "paid")
    assert len(DONE) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("resumed", [False, True])
def test_not_in_doubt_and_stopped(
    shared_app: sagas.Launched, policy: str, kind: str, resumed: bool
) -> None:
    """A step that nobody can have begun is neither run, nor asked for, nor undone."""
    saga_id = f"{policy}-{kind}-{next(_numbers)}"

    def cancel() -> None:
        run = _running.of(saga_id)
        assert run is not None
        run.ask(Stop(Why.CANCEL, "enough"))

    starter = (buys if kind == "sync" else buys_async).options(saga_id=saga_id)
    if resumed:  # dies in the step before, which runs again, live
        LEDGER.crash_at("a")
        starter.start(policy, False)
        until(lambda: LEDGER.died and has_left(saga_id))
        LEDGER.clear()
        SWITCH["in a"] = cancel
        take_up(saga_id)
    else:
        SWITCH["in a"] = cancel
        with pytest.raises(SagaCancelledError):
            starter.run(policy, False)
    assert LEDGER == ["a", "undo a"]
    assert status(saga_id) is SagaStatus.FAILED


@pytest.mark.parametrize("kind", KINDS)
def test_refused_before_it_began_in_every_replay(shared_app: sagas.Launched, kind: str) -> None:
    """An attempted step that was refused is not undone after a crash in the unwinding, either."""
    saga_id = f"refused-{kind}-{next(_numbers)}"

    def cancel() -> None:
        run = _running.of(saga_id)
        assert run is not None
        run.ask(Stop(Why.CANCEL, "enough"))

    SWITCH["in a"] = cancel
    LEDGER.crash_at("undo a")
    (buys if kind == "sync" else buys_async).options(saga_id=saga_id).start("attempted", False)
    until(lambda: LEDGER.died and has_left(saga_id))
    take_up(saga_id)
    assert LEDGER == ["a", "undo a", "undo a"]
    act_name = "act" if kind == "sync" else "act_async"
    assert names(saga_id) == [act_name, f"charge-attempted-{kind}", f"undo:1:{act_name}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["probe", "attempted", "completed"])
def test_in_doubt_of_a_dead_letter(shared_app: sagas.Launched, policy: str, kind: str) -> None:
    """A step that killed its process again and again is asked, undone or parked, never run."""
    handle = crashed(policy, kind, "charge")
    take_up(handle.saga_id, MARKS["dead letter"]())
    if policy != "completed":
        assert [*STOPPED[policy, "charge"], *UNDONE_A] == LEDGER
        assert handle.status() is SagaStatus.FAILED
        return
    assert LEDGER == []
    state = handle.state()
    assert state.status is SagaStatus.PARKED
    assert [(s.step_id, s.status) for s in state.steps] == [
        (1, StepStatus.COMPLETED),
        (2, StepStatus.UNKNOWN),
    ]
    with sagas.SagaClient() as client:
        assert client.retry(handle.saga_id)
    until(lambda: handle.status().is_final and "undo a" in LEDGER)
    assert [*RUN, "undo paid", "undo a"] == LEDGER


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "definite"),
    [
        (ConnectionError("no answer"), False),
        (OutcomeUnknownError("who knows"), False),
        (NonRetryableError("declined"), True),
        (StepFailedError("Declined", "no"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_settling_that_fails(
    shared_app: sagas.Launched, error: Exception, definite: bool, kind: str
) -> None:
    """A settling run that fails says that nothing was done only if it fails definitely."""
    handle = crashed("completed", kind, "begin")
    SWITCH["before"] = failing(error)
    take_up(handle.saga_id, MARKS["cancel"]())
    if definite:
        assert LEDGER == ["begin", "undo a"]
        assert handle.status() is SagaStatus.FAILED
        return
    assert LEDGER == ["begin"]
    state = handle.state()
    assert state.status is SagaStatus.PARKED
    assert state.steps[-1].step_id == 2
    assert state.steps[-1].status is StepStatus.UNKNOWN
    with pytest.raises(SagaParkedError, match="does not know whether it took effect"):
        handle.result()
    SWITCH.pop("before")
    LEDGER.clear()
    with sagas.SagaClient() as client:
        assert client.retry(handle.saga_id)
    until(lambda: "undo a" in LEDGER and handle.status().is_final)
    assert handle.status() is SagaStatus.FAILED
    assert [*RUN, "undo paid", "undo a"] == LEDGER


@pytest.mark.parametrize("kind", KINDS)
def test_settling_goes_through_all_attempts(shared_app: sagas.Launched, kind: str) -> None:
    """A settling run is tried again as the step is, with its delays, whatever stopped the saga."""
    handle = crashed("completed", kind, "begin", again=True)
    times: list[float] = []

    def fail_once() -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise ConnectionError("no answer")

    SWITCH["before"] = fail_once
    take_up(handle.saga_id, MARKS["cancel"]())
    assert ["begin", *RUN, "undo paid", "undo a"] == LEDGER
    assert times[1] - times[0] >= 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["probe", "attempted", "completed"])
def test_a_stop_between_attempts_of_a_step_in_doubt(
    shared_app: sagas.Launched, policy: str, kind: str
) -> None:
    """A stop in the midst of its attempts does not make a step known that was in doubt."""
    handle = crashed(policy, kind, "charge", again=True)
    if policy == "probe":
        DONE.clear()  # so that it is run
    tries: list[int] = []

    def fail_once_and_cancel() -> None:
        tries.append(1)
        if len(tries) == 1:
            run = _running.of(handle.saga_id)
            assert run is not None
            run.ask(Stop(Why.CANCEL, "enough"))
            raise ConnectionError("no answer")

    SWITCH["before"] = fail_once_and_cancel
    take_up(handle.saga_id)
    assert {
        "probe": ["probe", "begin", "undo a"],
        "attempted": ["begin", "undo None", "undo a"],
        "completed": ["begin", *RUN, "undo paid", "undo a"],
    }[policy] == LEDGER
    assert not DONE
    assert handle.status() is SagaStatus.FAILED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_that_does_not_know(shared_app: sagas.Launched, policy: str, kind: str) -> None:
    """OutcomeUnknownError asks the probe, has an attempted step undone, and parks else."""
    SWITCH["after"] = failing(OutcomeUnknownError("who knows"))
    handle = new(policy, kind)
    until(lambda: handle.status().is_final)
    if policy == "probe":
        assert handle.result() == "found"
        assert ["a", *RUN, "probe", "b"] == LEDGER
    elif policy == "attempted":
        assert ["a", *RUN, "undo None", "undo a"] == LEDGER
    else:
        assert ["a", *RUN] == LEDGER
        state = handle.state()
        assert (state.status, state.steps[-1].status) == (SagaStatus.PARKED, StepStatus.UNKNOWN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [ConnectionError("refused"), NonRetryableError("declined")])
def test_an_attempt_that_did_not_know_before_one_that_failed(
    shared_app: sagas.Launched, kind: str, last: Exception
) -> None:
    """That the last attempt failed says nothing of the one before; a definite failure does."""
    errors: list[Exception] = [OutcomeUnknownError("who knows"), last]

    def fail() -> None:
        raise errors.pop(0)

    SWITCH["after"] = fail
    handle = new("completed", kind, again=True)
    until(lambda: handle.status().is_final)
    if isinstance(last, NonRetryableError):
        assert handle.status() is SagaStatus.FAILED
        assert ["a", *RUN, *RUN, "undo a"] == LEDGER
    else:
        assert handle.status() is SagaStatus.PARKED
        assert ["a", *RUN, *RUN] == LEDGER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["probe", "attempted", "completed"])
def test_a_step_that_raised(shared_app: sagas.Launched, policy: str, kind: str) -> None:
    """An ordinary error counts as not done; only an attempted step is undone all the same."""
    SWITCH["after"] = failing(ConnectionError("no answer"))
    handle = new(policy, kind)
    until(lambda: handle.status().is_final)
    assert ["a", *RUN, *(["undo None"] if policy == "attempted" else []), "undo a"] == LEDGER
    with pytest.raises(SagaFailedError, match="no answer"):
        handle.result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", ["cancel", "nothing"])
def test_a_probe_that_fails_is_asked_again(
    shared_app: sagas.Launched, kind: str, stop: str
) -> None:
    """A probe is tried again as an undo is, with the delays of its policy."""
    handle = crashed("probe", kind, "charge")
    times: list[float] = []

    def fail_twice() -> None:
        times.append(time.monotonic())
        if len(times) < 3:
            raise ConnectionError("no answer")

    SWITCH["probe"] = fail_twice
    take_up(handle.saga_id, MARKS[stop]())
    assert LEDGER[:3] == ["probe"] * 3
    assert LEDGER[3:] == (["undo found", "undo a"] if stop == "cancel" else ["b"])
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [ConnectionError("no answer"), NonRetryableError("no way")])
def test_a_probe_that_fails_for_good_parks(
    shared_app: sagas.Launched, kind: str, error: Exception
) -> None:
    """Where the probe gives up, a person has to find out; `retry` asks it again."""
    handle = crashed("probe", kind, "charge")
    SWITCH["probe"] = failing(error)
    take_up(handle.saga_id, MARKS["cancel"]())
    asked = 1 if isinstance(error, NonRetryableError) else 3
    assert ["probe"] * asked == LEDGER
    state = handle.state()
    assert (state.status, state.steps[-1].status) == (SagaStatus.PARKED, StepStatus.UNKNOWN)
    assert "its probe failed for good" in str(state.reason)
    SWITCH.pop("probe")
    LEDGER.clear()
    with sagas.SagaClient() as client:
        assert client.retry(handle.saga_id)
    until(lambda: "undo a" in LEDGER and handle.status().is_final)
    assert LEDGER == ["probe", "undo found", "undo a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_resolved_while_its_probe_fails(
    shared_app: sagas.Launched, kind: str
) -> None:
    """A person who has found out ends the attempts of the probe."""
    from sagas._marks import Resolution

    handle = crashed("probe", kind, "charge")

    def fail_and_be_resolved() -> None:
        run = _running.of(handle.saga_id)
        assert run is not None
        run.resolve({2: Resolution("seen to it")})
        raise ConnectionError("no answer")

    SWITCH["probe"] = fail_and_be_resolved
    take_up(handle.saga_id, MARKS["cancel"]())
    assert LEDGER == ["probe", "undo a"]
    assert handle.status() is SagaStatus.FAILED


# --- cancelled by DBOS in mid-step


def in_charge(policy: str, kind: str) -> SagaHandle[str]:
    """A saga in the middle of its charge, which goes on when the gate is opened."""
    inside = threading.Event()

    def stay() -> None:
        inside.set()
        SWITCH["gate"].wait(15)
        SWITCH.pop("after", None)
        if error := SWITCH.get("then"):
            raise error

    SWITCH["after"] = stay
    handle = new(policy, kind)
    assert inside.wait(15)
    return handle


@pytest.mark.parametrize("kind", ["sync"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("process", ["lives", "died"])
def test_a_cancel_of_dbos_in_mid_step(
    shared_app: sagas.Launched, policy: str, kind: str, process: str
) -> None:
    """The outcome that DBOS refused to record is known here; elsewhere the step is in doubt."""
    handle = in_charge(policy, kind)
    DBOS.cancel_workflow(handle.saga_id)
    SWITCH["gate"].set()
    until(lambda: has_left(handle.saga_id))
    assert names(handle.saga_id) == ["act"]
    LEDGER.clear()
    if process == "died":
        _kept.forget_all()
    take_up(handle.saga_id, MARKS["dbos"]())
    if process == "lives":
        undone = ["undo paid"] if policy != "none" else []
        assert [*undone, *UNDONE_A] == LEDGER
        assert names(handle.saga_id)[:2] == ["act", f"charge-{policy}-{kind}"]
    else:
        assert [*STOPPED[policy, "charge"], *UNDONE_A] == LEDGER
    assert len(DONE) == (policy == "none")
    with pytest.raises(SagaCancelledError):
        handle.result()


@pytest.mark.parametrize("policy", ["completed", "attempted"])
def test_an_error_that_dbos_refused_is_known(shared_app: sagas.Launched, policy: str) -> None:
    """A step that failed while DBOS cancelled its saga is not run again to learn that."""
    SWITCH["then"] = ConnectionError("no answer")
    handle = in_charge(policy, "sync")
    DBOS.cancel_workflow(handle.saga_id)
    SWITCH["gate"].set()
    until(lambda: has_left(handle.saga_id))
    LEDGER.clear()
    take_up(handle.saga_id, MARKS["dbos"]())
    assert [*(["undo None"] if policy == "attempted" else []), *UNDONE_A] == LEDGER


def test_an_undo_that_dbos_refused_is_not_run_twice(shared_app: sagas.Launched) -> None:
    """An undo that ended while DBOS cancelled its saga is recorded by the next execution."""
    inside = threading.Event()

    def hold() -> None:
        inside.set()
        SWITCH["gate"].wait(15)

    SWITCH["hold"] = hold
    handle = undone_slowly.options(saga_id=f"undo-{next(_numbers)}").start()
    assert inside.wait(15)
    DBOS.cancel_workflow(handle.saga_id)
    SWITCH["gate"].set()
    until(lambda: has_left(handle.saga_id))
    take_up(handle.saga_id, MARKS["dbos"]())
    assert LEDGER == ["a", "slow", "undo slow", "undo a"]
    assert handle.status() is SagaStatus.FAILED


def undo_slowly(result: str) -> None:
    SWITCH.pop("hold", lambda: None)()
    LEDGER.write(f"undo {result}")


@step(undo=undo_slowly)
def slow(name: str) -> str:
    LEDGER.write(name)
    return name


@saga
def undone_slowly() -> None:
    act("a")
    slow("slow")
    raise ValueError("end")


# --- groups


@step(undo=undo, undo_when="attempted")
async def attempted(name: str) -> str:
    LEDGER.write(f"try {name}")
    if name in SWITCH.get("fail", ()):
        raise ConnectionError(name)
    return name


@saga
async def attempts_together() -> None:
    import asyncio

    await asyncio.gather(
        attempted("x"), attempted("y"), act_async("a"), attempted("z"), return_exceptions=True
    )
    await act_async("b")
    raise ValueError("end")


def test_attempted_steps_of_a_group(shared_app: sagas.Launched) -> None:
    """In a group each that was begun is undone, by step ID, also after a crash in an undo."""
    SWITCH["fail"] = {"x", "z"}
    LEDGER.crash_at("undo y")
    saga_id = f"together-{next(_numbers)}"
    attempts_together.options(saga_id=saga_id).start()
    until(lambda: LEDGER.died and has_left(saga_id))
    take_up(saga_id)
    undone = ["undo b", "undo None", "undo a", "undo y"]
    assert LEDGER[4:] == ["b", *undone, "undo y", "undo None"]
    assert names(saga_id)[5:] == [
        f"undo:{i}:{n}"
        for i, n in (
            (5, "act_async"),
            (4, "attempted"),
            (3, "act_async"),
            (2, "attempted"),
            (1, "attempted"),
        )
    ]


@pytest.mark.parametrize("stop", ["nothing", "cancel"])
def test_a_group_in_doubt(shared_app: sagas.Launched, stop: str) -> None:
    """After a crash in a group every step of it without a checkpoint is in doubt."""
    saga_id = f"doubt-{next(_numbers)}"
    LEDGER.crash_at("try y")
    attempts_together.options(saga_id=saga_id).start()
    until(lambda: LEDGER.died and has_left(saga_id))
    recorded = names(saga_id)
    LEDGER.clear()
    take_up(saga_id, MARKS[stop]())
    if stop == "nothing":
        assert "try y" in LEDGER
        assert LEDGER[-5:] == ["undo b", "undo z", "undo a", "undo y", "undo x"]
        return
    assert "try y" not in LEDGER
    assert "undo None" in LEDGER  # y, and whatever else was not recorded
    assert len([e for e in LEDGER if e.startswith("undo")]) == 4
    assert len(recorded) < 4


def test_a_saga_resumed_on_a_queue_by_hand(shared_app: sagas.Launched) -> None:
    """A saga that has recorded steps is in doubt of the next, whoever resumed it and how."""
    handle = crashed("completed", "sync", "charge")
    DBOS.update_workflow_attributes(handle.saga_id, MARKS["cancel"](), merge=True)
    resume(handle.saga_id)  # with no mark that tells of it
    assert [*RUN, "undo paid", "undo a"] == LEDGER


def test_now_is_what_the_marks_count_in() -> None:
    """The clock of marks is the clock of deadlines."""
    assert abs(_dbos.now() / 1000 - time.time()) < 5
