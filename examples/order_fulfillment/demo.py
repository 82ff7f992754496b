"""The demo: orders come in, workers are killed, and in the end the books must balance."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from sagas import SagaClient, SagaState

from . import report
from .audit import audit
from .books import Books, read_books
from .chaos import tell
from .lives import Life, caught, check_kills
from .orders import Order, load_orders, load_products
from .run import DemoFailedError, Run, fresh_run, saga_id
from .services.inventory import stock_up
from .services.store import connected


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = _options(arguments)
    paint = report.Paint(sys.stdout.isatty())
    began = time.monotonic()
    try:
        with fresh_run(keep=options.keep) as run, connected(run.services_url):
            perform(run, paint)
    except DemoFailedError as failure:
        print(f"\n{paint('The demo failed.', 'red')} {failure}", flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\nAll or undone, whatever happened. {time.monotonic() - began:.1f} s.")
    if options.keep:
        print(f"The databases are kept: {run.place}")
    return 0


def perform(run: Run, paint: report.Paint) -> None:
    """
    Run all orders, show what became of them, and audit it.

    Raises:
        DemoFailedError: A worker failed, or something does not balance.
    """
    orders, products = load_orders(), load_products()
    stock_up({product.sku: product.pieces for product in products.values()})
    backend = sa.make_url(run.system_url).get_backend_name()
    _show(report.heading(f"{len(orders)} orders, one saga each, on {backend}", paint))
    began = time.monotonic()
    lives = tell(
        run,
        [order.order_id for order in orders],
        lambda news: _show([f"{time.monotonic() - began:8.3f} s  {news}"]),
    )
    conclude(run, orders, lives, paint)


def conclude(run: Run, orders: Sequence[Order], lives: Sequence[Life], paint: report.Paint) -> None:
    """
    Show what became of the orders, and audit it.

    Raises:
        DemoFailedError: Something does not balance.
    """
    with SagaClient(run.system_url) as client:
        states = {o.order_id: client.get(saga_id(run.name, o.order_id)) for o in orders}
    books = read_books()
    _show(report.heading("Orders", paint))
    _show(report.order_table(orders, states, lives, paint))
    _show_one(states, lives, books, paint)
    ends = {order_id: state.status for order_id, state in states.items()}
    checks = (*audit(orders, load_products(), ends, books), check_kills(lives))
    _show(report.heading("Audit", paint))
    _show(report.verdict(checks, paint))
    wrong = [check.name for check in checks if check.problems]
    if wrong:
        raise DemoFailedError(f"The audit found something wrong: {', '.join(wrong)}.")


def _show_one(
    states: Mapping[str, SagaState], lives: Sequence[Life], books: Books, paint: report.Paint
) -> None:
    order_id = report.most_telling(states, lives)
    kills = [f"while {what}" for what in caught(order_id, lives)]
    _show(report.heading(f"Order {order_id}, killed {' and then '.join(kills)}", paint))
    _show(report.timeline(states[order_id], lives, books, paint))


def _show(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.order_fulfillment",
        description="Orders as sagas: they fail, their worker is killed, they resume, and the "
        "books are audited. On SQLite, or where DBOS_SYSTEM_DATABASE_URL says.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the services' databases and the worker's log"
    )
    return parser.parse_args(arguments)
