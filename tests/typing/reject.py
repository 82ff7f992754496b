"""
Wrong uses, for type checkers: each line marked as one is an error, and no other is. Never run.

A wrong undo is reported where it is given: at the decorator. Where only one checker can see the
mistake, the mark names it. An async undo declared below a plain step is seen by neither; it is
refused at import.
"""

from __future__ import annotations

from sagas import SagaClient, SagaHandle, add_compensation, launch, saga, shutdown
from steps import RetryPolicy, step


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
