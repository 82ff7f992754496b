"""Scopes: blocks whose steps are undone when an exception leaves them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import sagas
from sagas import (
    CompensationFailedError,
    SagaCancelledError,
    SagaClient,
    SagaFailedError,
    SagaHandle,
    SagaStatus,
    SagaUsageError,
    saga,
    scope,
)
from steps import NonRetryableError, StepTimeoutError, receive, receive_async, step

from .support import UNWATCHED, Ledger, crash_and_resume, names, resume, until

LEDGER = Ledger()
BROKEN: set[str] = set()
KINDS = ("sync", "async")


@pytest.fixture(autouse=True)
def fresh() -> None:
    LEDGER.clear()
    BROKEN.clear()


@pytest.fixture(scope="module")
def supervision() -> sagas.Supervision:
    return UNWATCHED


def new_id() -> str:
    return f"scope-{uuid.uuid4().hex[:8]}"


def undo(result: str, name: str) -> None:
    if name in BROKEN:
        raise NonRetryableError(f"{name} cannot be undone")
    LEDGER.write(f"undo {name}")


@step(undo=undo)
def do(name: str) -> str:
    if name.startswith("bad"):
        raise ValueError(name)
    LEDGER.write(name)
    return name


@step(undo=undo)
async def do_async(name: str) -> str:
    await asyncio.sleep(0)
    if name.startswith("bad"):
        raise ValueError(name)
    LEDGER.write(name)
    return name


@saga
def trip() -> str:
    do("a")
    for way in ("x", "y"):
        try:
            with scope(name=way):
                do(f"{way}1")
                with scope(name="inner"):
                    do(f"{way}2")
                do("bad" if way == "x" else f"{way}3")
        except ValueError:
            continue
        break
    do("z")
    do("bad at the end")
    return "never"


@saga
async def trip_async() -> str:
    await do_async("a")
    for way in ("x", "y"):
        try:
            async with scope(name=way):
                await do_async(f"{way}1")
                async with scope(name="inner"):
                    await do_async(f"{way}2")
                await do_async("bad" if way == "x" else f"{way}3")
        except ValueError:
            continue
        break
    await do_async("z")
    await do_async("bad at the end")
    return "never"


TRIPS: dict[str, Any] = {"sync": trip, "async": trip_async}
FORWARD = ["a", "x1", "x2", "undo x2", "undo x1", "y1", "y2", "y3", "z"]
BACKWARD = ["undo z", "undo y3", "undo y2", "undo y1", "undo a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_undone_alone(shared_app: sagas.Launched, kind: str) -> None:
    """The block that fails is undone, inner blocks with it, and what is around it stands."""
    saga_id = new_id()
    with pytest.raises(SagaFailedError, match="bad at the end") as caught:
        TRIPS[kind].options(saga_id=saga_id).run()
    assert LEDGER == FORWARD + BACKWARD
    assert [u.step_id for u in caught.value.undone] == [10, 9, 8, 7, 1]
    undos = [n.split(":")[1] for n in names(saga_id) if n.startswith("undo:")]
    assert undos == ["3", "2", "10", "9", "8", "7", "1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [*FORWARD, *BACKWARD])
def test_a_crash_anywhere(shared_app: sagas.Launched, kind: str, at: str) -> None:
    """After a crash in a block, or amid its unwinding, it goes the same way; no undo is lost."""
    saga_id = new_id()
    starter = TRIPS[kind].options(saga_id=saga_id)
    crash_and_resume(starter, ledger=LEDGER, at=[at])
    twice = LEDGER.count(at)
    assert twice == 2
    LEDGER.remove(at)
    assert sorted(LEDGER) == sorted(FORWARD + BACKWARD)
    assert list(dict.fromkeys(LEDGER)) == FORWARD + BACKWARD or at in FORWARD
    undos = [n.split(":")[1] for n in names(saga_id) if n.startswith("undo:")]
    assert undos == ["3", "2", "10", "9", "8", "7", "1"]


@saga
async def branches() -> str:
    async def branch(name: str) -> None:
        try:
            async with scope(name=name):
                await do_async(f"{name}1")
                await do_async(f"{name}2")
                await do_async(f"bad {name}" if name != "q" else f"{name}3")
        except ValueError:
            await do_async(f"{name} otherwise")

    await asyncio.gather(branch("p"), branch("q"), branch("r"))
    return "done"


EFFECTS = {"p otherwise", "r otherwise", "q1", "q2", "q3"}


@pytest.mark.parametrize("at", ["p1", "q2", "undo p2", "undo r1", "q3", "r otherwise"])
def test_branches_have_blocks_of_their_own(shared_app: sagas.Launched, at: str) -> None:
    """Blocks in concurrent branches are undone each for itself, also after a crash."""
    handle = branches.options(saga_id=new_id())
    crash_and_resume(handle, ledger=LEDGER, at=[at])
    saga_id = handle._options.saga_id
    assert saga_id is not None
    assert SagaHandle[str](saga_id).result() == "done"
    undone = {e.removeprefix("undo ") for e in LEDGER if e.startswith("undo ")}
    assert {e for e in LEDGER if not e.startswith("undo ")} - undone == EFFECTS
    undos = [n for n in names(saga_id) if n.startswith("undo:")]
    assert len(undos) == len(set(undos)) == 4


@saga
async def sibling_goes_on() -> str:
    async def sibling() -> None:
        await do_async("s1")
        await do_async("s2")
        await do_async("s3")

    try:
        async with scope():
            await asyncio.gather(do_async("bad"), sibling())
    except ValueError:
        return "caught"
    return "never"


def test_what_is_in_flight_in_a_block_is_undone_too(shared_app: sagas.Launched) -> None:
    """A branch that `gather` leaves running begins nothing more, and what it did is undone."""
    assert sibling_goes_on.options(saga_id=new_id()).run() == "caught"
    done = [e for e in LEDGER if not e.startswith("undo ")]
    assert [e for e in LEDGER if e.startswith("undo ")] == [f"undo {e}" for e in reversed(done)]
    assert "s3" not in LEDGER


@saga
def stuck() -> str:
    do("a")
    try:
        with scope():
            do("b")
            do("c")
            do("bad")
    except ValueError:
        do("otherwise")
    return "done"


@saga
async def stuck_async() -> str:
    await do_async("a")
    try:
        async with scope():
            await do_async("b")
            await do_async("c")
            await do_async("bad")
    except ValueError:
        await do_async("otherwise")
    return "done"


@pytest.mark.slow
@pytest.mark.parametrize("saga_of", [stuck, stuck_async], ids=KINDS)
def test_an_undo_of_a_block_that_fails_parks(shared_app: sagas.Launched, saga_of: Any) -> None:
    """The saga is parked where it is; a retry undoes the rest of the block, and it goes on."""
    handle = saga_of.options(saga_id=new_id()).start()
    BROKEN.add("b")
    with pytest.raises(CompensationFailedError) as caught:
        handle.result()
    assert caught.value.not_undone[0].step_id == 2
    assert LEDGER == ["a", "b", "c", "undo c"]
    BROKEN.clear()
    with SagaClient() as client:
        assert client.retry(handle.saga_id)
    again = SagaHandle[str](handle.saga_id)
    until(lambda: again.status() is SagaStatus.COMPLETED)
    assert again.result() == "done"
    assert LEDGER == ["a", "b", "c", "undo c", "undo b", "otherwise"]


@saga(name="scopes.late")
def late(wait: bool) -> str:
    do("a")
    try:
        with scope(name="short", timeout=0.4):
            do("b")
            if wait:
                receive("never")
            time.sleep(0.5)
            do("c")
    except StepTimeoutError as error:
        return str(error)
    return "never"


@saga(name="scopes.late_async")
async def late_async(wait: bool) -> str:
    await do_async("a")
    try:
        async with scope(name="short", timeout=0.4):
            await do_async("b")
            if wait:
                await receive_async("never")
            await asyncio.sleep(0.5)
            await do_async("c")
    except StepTimeoutError as error:
        return str(error)
    return "never"


@pytest.mark.parametrize("wait", [True, False], ids=["waits", "works"])
@pytest.mark.parametrize("saga_of", [late, late_async], ids=KINDS)
def test_the_time_of_a_block(shared_app: sagas.Launched, saga_of: Any, wait: bool) -> None:
    """Past its limit no further step of a block begins, a wait ends, and the saga goes on."""
    answer = saga_of.options(saga_id=new_id()).run(wait)
    assert "'scope short' did not end within 0.4 s" in answer
    assert LEDGER == ["a", "b", "undo b"]


@saga
def swallows() -> str:
    with scope(timeout=0.2):
        do("a")
        time.sleep(0.3)
        for name in "bc":
            try:
                do(name)
            except StepTimeoutError:
                LEDGER.write(f"no {name}")
    do("d")
    return "done"


def test_a_blocks_expiry_is_sticky_in_it(shared_app: sagas.Launched) -> None:
    """A block whose time is up begins nothing more however often it is told; the saga does."""
    saga_id = new_id()
    assert swallows.options(saga_id=saga_id).run() == "done"
    assert LEDGER == ["a", "no b", "no c", "d"]
    resume_names = names(saga_id)
    assert resume_names.count("do") == 3


@saga
def cancelled_in_block() -> None:
    do("a")
    try:
        with scope():
            do("b")
            receive("never")
    except Exception:
        do("swallowed")


def test_a_cancel_in_a_block(shared_app: sagas.Launched) -> None:
    """A cancel that leaves a block undoes the whole saga, once, newest first."""
    handle = cancelled_in_block.options(saga_id=new_id()).start()
    until(lambda: "b" in LEDGER and "DBOS.sleep" in names(handle.saga_id))
    handle.cancel("enough")
    with pytest.raises(SagaCancelledError):
        handle.result(timeout=15)
    assert LEDGER == ["a", "b", "undo b", "undo a"]


@saga
async def wrong_form_async() -> None:
    with scope():
        await do_async("a")


@saga
def used_twice() -> None:
    block = scope()
    with block:
        pass
    with block:
        pass


@step
def with_a_scope() -> None:
    with scope():
        pass


@saga
def in_a_step() -> None:
    with_a_scope()


@pytest.mark.parametrize(
    "wrong", [wrong_form_async, used_twice, in_a_step], ids=lambda s: str(s.name)
)
def test_wrong_uses(shared_app: sagas.Launched, wrong: Any) -> None:
    """The form for the other kind of saga, a second use, a use in a step: each says so."""
    with pytest.raises(SagaFailedError, match=r"scope\(\)"):
        wrong.options(saga_id=new_id()).run()


def test_outside_a_saga() -> None:
    """Where no saga runs a scope is an error, and so are arguments that make no sense."""
    with pytest.raises(SagaUsageError, match="outside a saga"), scope():
        pass
    wrong: list[Callable[[], object]] = [lambda: scope(timeout=-1), lambda: scope(name="")]
    for make in wrong:
        with pytest.raises(SagaUsageError):
            make()


def test_a_replay_of_a_whole_block(shared_app: sagas.Launched) -> None:
    """A saga that crashes behind an undone block passes it again without effect."""
    saga_id = new_id()
    LEDGER.died.clear()
    LEDGER.crash_at("z")
    trip.options(saga_id=saga_id).start()
    until(lambda: LEDGER.died)
    LEDGER.clear()
    until(lambda: sagas._running.of(saga_id) is None)
    resume(saga_id)
    assert ["z", *BACKWARD] == LEDGER
