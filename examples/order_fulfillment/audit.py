"""
The audit: do the services' books agree with what became of the sagas? Pure.

It goes by the orders, the stock there was at first and each saga's end, and by nothing that the
sagas have said of themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sagas import SagaStatus

from .books import Books
from .orders import Order, Product, amount

Ends = Mapping[str, SagaStatus]
"""The state of each order's saga, by the order's ID."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be so."""

    name: str
    summary: str
    """What was found, in figures."""
    problems: tuple[str, ...]
    """What is wrong; empty where all is well."""


def audit(
    orders: Sequence[Order], products: Mapping[str, Product], ends: Ends, books: Books
) -> tuple[Check, ...]:
    """
    Compare the books with the ends of the sagas.

    Args:
        orders: All orders there were.
        products: The stock before the first of them.
        ends: What became of the sagas.
        books: The services' state when the last of them had ended.
    """
    fulfilled = [o for o in orders if ends.get(o.order_id) is SagaStatus.COMPLETED]
    return (
        _check_ends(orders, ends),
        _check_stock(fulfilled, products, books),
        _check_money(fulfilled, books),
        _check_standing("shipment", "shipments", fulfilled, books),
        _check_standing("confirmation", "confirmations", fulfilled, books),
        _check_once(orders, books),
    )


def _check_ends(orders: Sequence[Order], ends: Ends) -> Check:
    final = (SagaStatus.COMPLETED, SagaStatus.FAILED)
    counts = Counter(ends.values())
    problems = [
        f"order {order.order_id} is {ends.get(order.order_id, 'without a saga')}"
        for order in orders
        if ends.get(order.order_id) not in final
    ]
    figures = " + ".join(f"{counts[status]} {status}" for status in final)
    return Check("sagas", f"{len(orders)} orders = {figures}", tuple(problems))


def _check_stock(
    fulfilled: Sequence[Order], products: Mapping[str, Product], books: Books
) -> Check:
    shipped = Counter[str]()
    for order in fulfilled:
        shipped.update(order.quantities)
    problems = [
        f"{sku}: {product.pieces} at first, but {books.stock.get(sku, 0)} left and "
        f"{shipped[sku]} shipped"
        for sku, product in products.items()
        if product.pieces != books.stock.get(sku, 0) + shipped[sku]
    ]
    wanted = {order.order_id: order.quantities for order in fulfilled}
    held: dict[str, Counter[str]] = {}
    for reserved in books.reserved:
        held.setdefault(reserved.order_id, Counter()).update(reserved.pieces)
    problems += [
        f"order {order_id} holds {dict(held.get(order_id, {}))}, not {wanted.get(order_id, {})}"
        for order_id in sorted(wanted.keys() | held.keys())
        if held.get(order_id, {}) != wanted.get(order_id, {})
    ]
    first = sum(product.pieces for product in products.values())
    left = sum(books.stock.values())
    figures = f"{first} pieces = {left} left + {shipped.total()} shipped"
    return Check("stock", figures, tuple(problems))


def _check_money(fulfilled: Sequence[Order], books: Books) -> Check:
    due = Counter({order.order_id: order.cents for order in fulfilled})
    kept = Counter[str]()
    for money in books.money:
        kept[money.order_id] += money.captured - money.refunded
    problems = [
        f"order {order_id}: {amount(kept[order_id])} kept, {amount(due[order_id])} due"
        for order_id in sorted(due.keys() | kept.keys())
        if kept[order_id] != due[order_id]
    ]
    captured = sum(money.captured for money in books.money)
    refunded = sum(money.refunded for money in books.money)
    figures = (
        f"EUR {amount(captured)} captured - {amount(refunded)} refunded = "
        f"{amount(due.total())} due for what was shipped"
    )
    return Check("money", figures, tuple(problems))


def _check_standing(kind: str, name: str, fulfilled: Sequence[Order], books: Books) -> Check:
    """Exactly one for each order that was fulfilled, and none for any other."""
    expected = {order.order_id for order in fulfilled}
    of_kind = [deed for deed in books.deeds if deed.kind == kind]
    standing = Counter(deed.order_id for deed in of_kind if not deed.undone)
    problems = [
        f"order {order_id} has {standing[order_id]}, not {int(order_id in expected)}"
        for order_id in sorted(expected | standing.keys())
        if standing[order_id] != (order_id in expected)
    ]
    figures = (
        f"{len(of_kind)} made - {len(of_kind) - standing.total()} undone = "
        f"{len(expected)} orders fulfilled"
    )
    return Check(name, figures, tuple(problems))


def _check_once(orders: Sequence[Order], books: Books) -> Check:
    problems = [*_done_twice(books), *_strangers(orders, books)]
    problems += [
        f"order {money.order_id}: {amount(money.refunded)} refunded of {amount(money.captured)}"
        for money in books.money
        if money.refunded not in (0, money.captured)
    ]
    repeats = sum(deed.repeats for deed in books.deeds)
    figures = f"{len(books.deeds)} effects, none twice; {repeats} repeated calls changed nothing"
    return Check("once", figures, tuple(problems))


def _done_twice(books: Books) -> Iterator[str]:
    counts = Counter((deed.order_id, deed.kind) for deed in books.deeds)
    for (order_id, kind), count in sorted(counts.items()):
        if count > 1:
            yield f"order {order_id}: {kind} made {count} times"


def _strangers(orders: Sequence[Order], books: Books) -> Iterator[str]:
    known = {order.order_id for order in orders}
    for deed in books.deeds:
        if deed.order_id not in known:
            yield f"{deed.kind} for {deed.order_id}, which nobody ordered"
