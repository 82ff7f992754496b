"""What the shop sells and what was ordered: values, and the files they are read from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Product:
    """Something on the shelf."""

    sku: str
    pieces: int
    """How many there are before the first order."""
    cents: int
    """The price of one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order."""

    sku: str
    quantity: int
    cents: int
    """The price of one piece at the time of the order."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer wants, and how to charge and reach them."""

    order_id: str
    customer: str
    mail: str
    card: str
    country: str
    lines: tuple[Line, ...]

    @property
    def cents(self) -> int:
        """What the whole order costs."""
        return sum(line.quantity * line.cents for line in self.lines)

    @property
    def quantities(self) -> dict[str, int]:
        """How many pieces of what."""
        return {line.sku: line.quantity for line in self.lines}


def load_products(path: Path = FOLDER / "stock.json") -> dict[str, Product]:
    """The products by SKU."""
    return {sku: Product(sku, **facts) for sku, facts in _read(path).items()}


def load_orders(path: Path = FOLDER / "orders.json") -> list[Order]:
    """The orders, in the order in which they come in."""
    products = load_products()
    orders = []
    for facts in _read(path):
        items = facts.pop("items")
        lines = tuple(Line(sku, pieces, products[sku].cents) for sku, pieces in items.items())
        orders.append(Order(**facts, lines=lines))
    return orders


def amount(cents: int) -> str:
    """Cents as people write euros."""
    return f"{Decimal(cents) / 100:,.2f}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
