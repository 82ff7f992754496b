"""The same as `orders`, written by hand: a plain DBOS workflow that keeps a list of its undos."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from dbos import DBOS

from .orders import Refused


@DBOS.step()
def release_stock(stock: str, order: int) -> None:
    """Undo of the first step."""


@DBOS.step()
def refund(payment: str, order: int) -> None:
    """Undo of the second step."""


@DBOS.step()
def cancel_shipment(shipment: str, order: int) -> None:
    """Undo of the third step."""


@DBOS.step()
def reserve_stock(order: int) -> str:
    return f"stock-{order}"


@DBOS.step()
def charge(order: int) -> str:
    return f"payment-{order}"


@DBOS.step()
def ship(order: int) -> str:
    return f"shipment-{order}"


@DBOS.step()
def confirm(order: int) -> str:
    if order < 0:
        raise Refused("no such customer")
    return f"message-{order}"


@DBOS.step()
async def release_stock_async(stock: str, order: int) -> None:
    """Undo of the first step."""


@DBOS.step()
async def refund_async(payment: str, order: int) -> None:
    """Undo of the second step."""


@DBOS.step()
async def cancel_shipment_async(shipment: str, order: int) -> None:
    """Undo of the third step."""


@DBOS.step()
async def reserve_stock_async(order: int) -> str:
    return f"stock-{order}"


@DBOS.step()
async def charge_async(order: int) -> str:
    return f"payment-{order}"


@DBOS.step()
async def ship_async(order: int) -> str:
    return f"shipment-{order}"


@DBOS.step()
async def confirm_async(order: int) -> str:
    if order < 0:
        raise Refused("no such customer")
    return f"message-{order}"


@DBOS.workflow(name="by_hand.fulfil")
def fulfil(order: int) -> str:
    """The workflow beside the measured saga, sync."""
    undos: list[Callable[[], None]] = []
    try:
        undos.append(partial(release_stock, reserve_stock(order), order))
        undos.append(partial(refund, charge(order), order))
        undos.append(partial(cancel_shipment, ship(order), order))
        return confirm(order)
    except Exception:
        for undo in reversed(undos):
            undo()
        raise


@DBOS.workflow(name="by_hand.fulfil_async")
async def fulfil_async(order: int) -> str:
    """The workflow beside the measured saga, async."""
    undos: list[Callable[[], Awaitable[None]]] = []
    try:
        undos.append(partial(release_stock_async, await reserve_stock_async(order), order))
        undos.append(partial(refund_async, await charge_async(order), order))
        undos.append(partial(cancel_shipment_async, await ship_async(order), order))
        return await confirm_async(order)
    except Exception:
        for undo in reversed(undos):
            await undo()
        raise
