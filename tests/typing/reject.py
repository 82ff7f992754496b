"""
Wrong uses, for type checkers: each line marked as one is an error, and no other is. Never run.

A wrong undo is reported where it is given: at the decorator. Where only one checker can see the
mistake, the mark names it. Seen by neither:

- An async undo declared below a plain step; it is refused at import.
- An undo declared below a step with `undo_when="attempted"` that does not take None.
- A probe whose result is wider than that of the step it is given to. It is reported where the
  step's result is used, since that is widened; declared below the step, it is reported at once.
"""

from __future__ import annotations

from sagas import SagaClient, SagaHandle, add_compensation, launch, saga, shutdown
from steps import NOT_DONE, NotDone, RetryPolicy, step


def of_text(result: str) -> None: ...


def of_number(result: int) -> None: ...


def of_number_and_text(result: int, text: str) -> None: ...


def of_number_and_number(result: int, number: int) -> None: ...


def of_nothing() -> None: ...


def of_too_many(result: int, text: str, more: str) -> None: ...


async def of_number_async(result: int) -> None: ...


async def of_number_and_text_async(result: int, text: str) -> None: ...


async def of_text_async(result: str) -> None: ...


@step(undo=of_text)  # wrong
def undo_of_another_result(text: str) -> int:
    return 1


@step(undo=of_number_and_number)  # wrong
def undo_of_other_arguments(text: str) -> int:
    return 1


@step(undo=of_nothing)  # wrong
def undo_without_result(text: str) -> int:
    return 1


@step(undo=of_too_many)  # wrong
def undo_with_too_many_arguments(text: str) -> int:
    return 1


@step(undo=of_number_async)  # wrong
def async_undo_of_a_sync_step(text: str) -> int:
    return 1


@step(undo=of_number_and_text_async)  # wrong
def async_undo_with_arguments_of_a_sync_step(text: str) -> int:
    return 1


@step(undo=of_text)  # wrong
async def undo_of_another_result_of_an_async_step(text: str) -> int:
    return 1


@step(undo=of_text_async)  # wrong
async def async_undo_of_another_result(text: str) -> int:
    return 1


@step(undo=of_number_and_number)  # wrong
async def undo_of_other_arguments_of_an_async_step(text: str) -> int:
    return 1


@step
def counted(text: str) -> int:
    return 1


@counted.undo  # wrong
def uncount_text(result: str) -> None: ...


@counted.undo  # wrong: pyright
def uncount_other_arguments(result: int, number: int) -> None: ...


class Inventory:
    @step
    def reserve(self, text: str) -> int:
        return 1

    @reserve.undo  # wrong
    def release(self, result: str, text: str) -> None: ...

    @reserve.undo  # wrong
    def release_other(self, result: int, number: int) -> None: ...

    @step
    async def ship(self, text: str) -> int:
        return 1

    @ship.undo  # wrong
    async def call_back(self, result: str) -> None: ...


# Undos of attempted steps: they must take None.


def of_number_or_none(result: int | None) -> None: ...


def of_number_or_none_and_text(result: int | None, text: str) -> None: ...


def of_text_or_none(result: str | None) -> None: ...


def of_number_or_none_and_number(result: int | None, number: int) -> None: ...


async def of_number_or_none_async(result: int | None) -> None: ...


@step(undo=of_number, undo_when="attempted")  # wrong
def attempted_without_none(text: str) -> int:
    return 1


@step(undo=of_number_and_text, undo_when="attempted")  # wrong
def attempted_without_none_with_arguments(text: str) -> int:
    return 1


@step(undo=of_number_async, undo_when="attempted")  # wrong
async def attempted_without_none_async(text: str) -> int:
    return 1


@step(undo=of_number_and_text_async, undo_when="attempted")  # wrong
async def attempted_without_none_async_with_arguments(text: str) -> int:
    return 1


@step(undo=of_number, undo_when="attempted")  # wrong
async def attempted_without_none_sync_undo(text: str) -> int:
    return 1


@step(undo=of_text_or_none, undo_when="attempted")  # wrong
def attempted_of_another_result(text: str) -> int:
    return 1


@step(undo=of_number_or_none_and_number, undo_when="attempted")  # wrong
def attempted_of_other_arguments(text: str) -> int:
    return 1


@step(undo=of_number_or_none_async, undo_when="attempted")  # wrong
def attempted_async_undo_of_a_sync_step(text: str) -> int:
    return 1


@step(undo=of_text_or_none, undo_when="attempted")  # wrong
async def attempted_of_another_result_async(text: str) -> int:
    return 1


# Probes.


def find_number(text: str) -> int | NotDone:
    return NOT_DONE


def find_text(text: str) -> str | NotDone:
    return NOT_DONE


def find_whether(text: str) -> bool:
    return True


def find_number_by_number(number: int) -> int | NotDone:
    return NOT_DONE


def find_number_by_more(text: str, more: str) -> int | NotDone:
    return NOT_DONE


def find_number_or_none(text: str) -> int | None:
    return None


async def find_number_async(text: str) -> int | NotDone:
    return NOT_DONE


async def find_text_async(text: str) -> str | NotDone:
    return NOT_DONE


@step(probe=find_text)  # wrong
def probe_of_another_result(text: str) -> int:
    return 1


@step(probe=find_whether)  # wrong
def probe_that_says_whether(text: str) -> None: ...


@step(probe=find_number_by_number)  # wrong
def probe_of_other_arguments(text: str) -> int:
    return 1


@step(probe=find_number_by_more)  # wrong
def probe_of_more_arguments(text: str) -> int:
    return 1


@step(probe=find_number_async)  # wrong
def async_probe_of_a_sync_step(text: str) -> int:
    return 1


@step(probe=find_text_async)  # wrong
async def async_probe_of_another_result(text: str) -> int:
    return 1


@step(probe=find_text)  # wrong
async def probe_of_another_result_of_an_async_step(text: str) -> int:
    return 1


@step(probe=find_number_by_number)  # wrong
async def probe_of_other_arguments_of_an_async_step(text: str) -> int:
    return 1


@step(probe=find_number_or_none)
def probe_that_forgets_not_done(text: str) -> int:
    return 1


widened: int = probe_that_forgets_not_done("a")  # wrong


@step(probe=find_text, undo=of_number)  # wrong
def probe_that_does_not_fit_the_undo(text: str) -> int:
    return 1


@step(probe=find_number_or_none, undo=of_number)  # wrong
def probe_whose_result_the_undo_cannot_take(text: str) -> int:
    return 1


@step(probe=find_number, undo=of_text)  # wrong
def probed_with_an_undo_of_another_result(text: str) -> int:
    return 1


@step(probe=find_number, undo=of_number_and_number)  # wrong
def probed_with_an_undo_of_other_arguments(text: str) -> int:
    return 1


@step(probe=find_number, undo=of_number_async)  # wrong
def probed_with_an_async_undo_of_a_sync_step(text: str) -> int:
    return 1


@step(probe=find_number_async, undo=of_text)  # wrong
async def probed_on_loop_with_an_undo_of_another_result(text: str) -> int:
    return 1


@step
def probed_below(text: str) -> int:
    return 1


@probed_below.probe  # wrong
def find_below_text(text: str) -> str | NotDone:
    return NOT_DONE


@probed_below.probe  # wrong
def find_below_none(text: str) -> int | None:
    return None


@probed_below.probe  # wrong
def find_below_by_number(number: int) -> int | NotDone:
    return NOT_DONE


@probed_below.probe  # wrong
async def find_below_on_loop(text: str) -> int | NotDone:
    return NOT_DONE


@step
async def probed_below_async(text: str) -> int:
    return 1


@probed_below_async.probe  # wrong
async def find_below_text_async(text: str) -> str | NotDone:
    return NOT_DONE


@probed_below_async.probe  # wrong
def find_below_none_async(text: str) -> int | None:
    return None


class Shop:
    @step
    def buy(self, text: str) -> int:
        return 1

    @buy.probe  # wrong
    def find_bought(self, text: str) -> str | NotDone:
        return NOT_DONE

    @buy.probe  # wrong
    def find_bought_by_number(self, number: int) -> int | NotDone:
        return NOT_DONE


step(timeout="5 min")  # wrong
step(undo_when="always")  # wrong
step(undo=of_number, undo_when="always")  # wrong
step(undo_when=True)  # wrong
step(probe=3)  # wrong
step(probe=find_number, undo_when="completed")  # wrong
step(probe=find_number, undo=of_number_or_none, undo_when="attempted")  # wrong
step(find_number, timeout=3)  # wrong
not_done: None = NOT_DONE  # wrong
step(undo=3)  # wrong
step(retry=3)  # wrong
step(name=3)  # wrong
step(undo_timeout="5 min")  # wrong
step(undo_retry=5)  # wrong
step(unknown=1)  # wrong
RetryPolicy(3)  # wrong
RetryPolicy(max_attempts="3")  # wrong
RetryPolicy(retry_on=ValueError())  # wrong
RetryPolicy(retry_on=BaseException)  # wrong
RetryPolicy(attempts=3)  # wrong
counted(3)  # wrong
counted()  # wrong
counted("a", more=1)  # wrong
Inventory().reserve(3)  # wrong
text: str = counted("a")  # wrong


@saga
def fulfil(number: int) -> str:
    return "done"


@saga
async def fulfil_async(number: int) -> str:
    return "done"


saga(name=3)  # wrong
saga(undo_failure="stop")  # wrong
saga(max_recovery_attempts="many")  # wrong
saga(unknown=1)  # wrong
fulfil("a")  # wrong
fulfil.start("a")  # wrong
fulfil.start()  # wrong
fulfil.run(1, 2)  # wrong
fulfil_async.start("a")  # wrong
fulfil.options(saga_id="x").start("a")  # wrong
fulfil.options("x")  # wrong
fulfil.options(saga_id=7)  # wrong
fulfil.options(priority="high")  # wrong
fulfil.options(delay="soon")  # wrong
fulfil.options(unknown=1)  # wrong
number: int = fulfil.run(1)  # wrong
handle: SagaHandle[int] = fulfil.start(1)  # wrong
handle_of_async: SagaHandle[int] = fulfil_async.start(1)  # wrong
fulfil.start(1).result(3)  # wrong
fulfil.start(1).result(timeout="3")  # wrong
add_compensation(3)  # wrong
SagaClient(3)  # wrong
SagaClient("x").list(status=3)  # wrong
SagaClient("x").list("FAILED")  # wrong
SagaClient("x").get(3)  # wrong
launch(3)  # wrong
launch(unknown=1)  # wrong
shutdown(3)  # wrong


async def awaited() -> None:
    await fulfil_async("a")  # wrong
    await fulfil.run_async("a")  # wrong
    number: int = await fulfil_async(1)  # wrong
