"""The group rule: what makes concurrent steps of an async saga replay alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas._group import Group

quick = settings(max_examples=30, deadline=None)


def run(main: Callable[[Group], Awaitable[Any]]) -> Any:
    """Run `main` with the group of a saga whose body it is."""

    async def body() -> Any:
        return await main(Group())

    return asyncio.run(body())


async def after(turns: int, result: Any = None, error: Exception | None = None) -> Any:
    """Work that takes so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    if error is not None:
        raise error
    return result


def test_one_step_after_the_other() -> None:
    """A sequential saga gets each outcome as it comes."""

    async def main(group: Group) -> Any:
        first = await group.join(1, after(3, "a"))
        second = await group.join(2, after(0, "b"))
        with pytest.raises(LookupError, match="c"):
            await group.join(3, after(1, error=LookupError("c")))
        return first, second, await group.settle()

    assert run(main) == ("a", "b", [])


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_outcomes_come_together_and_by_id(slow: int) -> None:
    """However fast each was, outcomes are handed over by step ID when all have ended."""

    async def main(group: Group) -> list[int]:
        seen: list[int] = []

        async def branch(step_id: int) -> None:
            seen.append(await group.join(step_id, after(30 if step_id == slow else 1, step_id)))

        await asyncio.gather(branch(3), branch(1), branch(2))
        return seen

    assert run(main) == [1, 2, 3]


@quick
@given(
    durations=st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=3), min_size=1, max_size=4),
    chance=st.randoms(use_true_random=False),
)
def test_branches_go_in_lock_step(durations: list[list[int]], chance: random.Random) -> None:
    """Branches of several steps take the same order live and from checkpoints, always."""

    def order(of: list[list[int]]) -> list[tuple[int, int]]:
        async def main(group: Group) -> list[tuple[int, int]]:
            seen: list[tuple[int, int]] = []
            ids = iter(range(1, 100))

            async def branch(number: int, turns: list[int]) -> None:
                for place, t in enumerate(turns):
                    await group.join(next(ids), after(t))
                    seen.append((number, place))

            async with asyncio.TaskGroup() as tasks:
                for number, turns in enumerate(of):
                    tasks.create_task(branch(number, turns))
            return seen

        return run(main)  # type: ignore[no-any-return]

    live = order(durations)
    assert live == order([[0] * len(branch) for branch in durations])
    assert live == order([[chance.randrange(9) for _ in branch] for branch in durations])


@pytest.mark.parametrize("between", [1, 3, 5])
def test_branches_that_do_something_between_their_steps(between: int) -> None:
    """A branch may come to its next step a little later: live and replayed groups are the same."""

    def order(turns: dict[int, int]) -> list[int]:
        async def main(group: Group) -> list[int]:
            seen: list[int] = []

            async def step(step_id: int) -> None:
                await group.join(step_id, after(turns.get(step_id, 0)))
                seen.append(step_id)

            async def quick() -> None:
                await step(1)
                await step(3)

            async def slow() -> None:
                await after(between)
                await step(2)

            await asyncio.gather(quick(), slow())
            return seen

        return run(main)  # type: ignore[no-any-return]

    replayed = order({})
    assert replayed == [1, 2, 3]
    assert replayed == order({1: 50}) == order({2: 50}) == order({1: 2, 2: 9})


def test_a_step_that_joins_after_the_others_have_ended() -> None:
    """A group that gains a member at the last moment is handed over with that member."""

    async def main(group: Group) -> list[str]:
        seen: list[str] = []

        async def long() -> None:
            await after(60)
            seen.append("2 ended")

        async def first() -> None:
            await group.join(1, after(0))
            seen.append("1 handed over")

        async def second() -> None:
            await after(5)
            await group.join(2, long())

        await asyncio.gather(first(), second())
        return seen

    assert run(main) == ["2 ended", "1 handed over"]


def test_a_failure_waits_for_its_siblings() -> None:
    """The body learns of a failure when the others have ended: all outcomes are known then."""

    async def main(group: Group) -> list[str]:
        ended: list[str] = []

        async def slow() -> None:
            await after(30)
            ended.append("slow")

        with pytest.raises(LookupError):
            await asyncio.gather(
                group.join(1, after(0, error=LookupError())), group.join(2, slow())
            )
        return ended

    assert run(main) == ["slow"]


def test_the_first_failure_is_that_of_the_lowest_id() -> None:
    """Of several failures `gather` raises the one of the step that was called first."""

    async def main(group: Group) -> None:
        await asyncio.gather(
            group.join(1, after(20, error=LookupError("first"))),
            group.join(2, after(0, error=ValueError("second"))),
        )

    with pytest.raises(LookupError, match="first"):
        run(main)


def test_a_step_that_joins_late_is_waited_for() -> None:
    """A step that begins while others are in flight belongs to their group."""

    async def main(group: Group) -> list[int]:
        seen: list[int] = []
        go = asyncio.Event()

        async def first() -> None:
            seen.append(await group.join(1, after(10, 1)))

        async def second() -> None:
            await go.wait()
            seen.append(await group.join(2, after(40, 2)))

        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        await after(3)
        go.set()
        await asyncio.gather(*tasks)
        return seen

    assert run(main) == [1, 2]


def test_a_cancelled_awaiter_does_not_tear_the_work() -> None:
    """A step that has begun goes on to its end when nobody waits for it any more."""

    async def main(group: Group) -> list[str]:
        ended: list[str] = []

        async def work() -> None:
            await after(20)
            ended.append("done")

        awaiter = asyncio.create_task(group.join(1, work()))
        await after(3)
        awaiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiter
        assert ended == []
        await group.settle()
        return ended

    assert run(main) == ["done"]


def test_a_timeout_of_the_body_does_not_tear_the_work() -> None:
    """`asyncio.timeout` around a step ends the wait, not the step."""

    async def main(group: Group) -> str:
        begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await go_on.wait()
            ended.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await group.join(1, work())
        assert begun.is_set()
        assert not ended.is_set()
        go_on.set()
        await group.settle()
        return "ended" if ended.is_set() else "torn"

    assert run(main) == "ended"


def test_settle_waits_for_all_that_began() -> None:
    """A saga does not end before the steps that it began and forgot."""

    async def main(group: Group) -> list[int]:
        ended: list[int] = []

        async def work(step_id: int) -> None:
            await after(10 * step_id)
            ended.append(step_id)

        forgotten = [asyncio.create_task(group.join(i, work(i))) for i in (1, 2, 3)]
        await after(2)
        assert await group.settle() == []
        assert len(forgotten) == 3
        return ended

    assert run(main) == [1, 2, 3]


def test_settle_tells_errors_that_nobody_saw() -> None:
    """The error of a step that was begun and not awaited is told, by step ID."""

    async def main(group: Group) -> list[str]:
        forgotten = [
            asyncio.create_task(group.join(i, after(30 - 10 * i, error=LookupError(str(i)))))
            for i in (2, 1)
        ]
        await after(2)
        errors = await group.settle()
        await asyncio.gather(*forgotten, return_exceptions=True)
        return [str(e) for e in errors]

    assert run(main) == ["1", "2"]


def test_settle_does_not_tell_errors_of_cancelled_awaiters() -> None:
    """Whoever was cancelled had decided already not to hear of the outcome."""

    async def main(group: Group) -> list[BaseException]:
        awaiter = asyncio.create_task(group.join(1, after(20, error=LookupError("unheard"))))
        await after(3)
        awaiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiter
        return await group.settle()

    assert run(main) == []


def test_an_empty_group_is_settled() -> None:
    """A saga without steps has nothing to wait for."""

    async def main(group: Group) -> Any:
        return await group.settle(), await group.settle()

    assert run(main) == ([], [])


def test_a_base_exception_of_the_work_passes() -> None:
    """Control flow of the machinery reaches the awaiter as it is."""

    class Stop(BaseException):
        pass

    async def work() -> None:
        await asyncio.sleep(0)
        raise Stop

    async def main(group: Group) -> None:
        await group.join(1, work())

    with pytest.raises(Stop):
        run(main)


def test_work_that_is_cancelled_from_within() -> None:
    """A cancellation of the work itself, at shutdown, is a cancellation of its awaiter."""

    async def work() -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main(group: Group) -> Any:
        with pytest.raises(asyncio.CancelledError):
            await group.join(1, work())
        return await group.settle()

    assert run(main) == []


def test_unawaited_errors_are_not_reported_by_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """What `settle` has told is not told again as 'never retrieved'."""

    async def main(group: Group) -> None:
        awaiter = asyncio.create_task(group.join(1, after(1, error=LookupError("x"))))
        await after(0)
        await group.settle()
        await asyncio.wait({awaiter})
        assert isinstance(awaiter.exception(), LookupError)

    run(main)
    assert "never retrieved" not in caplog.text
