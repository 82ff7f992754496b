"""
The process that runs the sagas: `python -m examples.order_fulfillment.worker`.

It may be killed at any moment and started again. What was in flight is resumed by `launch()`;
an order that was started before is not started twice, as its saga has the order's ID.
"""

from __future__ import annotations

import contextlib
import os
import time

from sagas import SagaOutcomeError, launch

from .orders import load_orders
from .run import RUN, SERVICES_DATABASE, saga_id
from .saga import fulfil_order
from .services.store import connected

INTERVAL = 0.05
"""Seconds between two orders."""


def main() -> None:
    """Start the saga of every order, and wait until all have ended."""
    run = os.environ[RUN]
    # Each run is an application of its own. Workers of one application share its sagas: what one
    # of them resumes may be taken up by another, and that one would call another run's services.
    with connected(os.environ[SERVICES_DATABASE]), launch(name=run):
        handles = []
        for order in load_orders():
            handles.append(fulfil_order.options(saga_id=saga_id(run, order.order_id)).start(order))
            time.sleep(INTERVAL)
        for handle in handles:
            with contextlib.suppress(SagaOutcomeError):
                handle.result()


if __name__ == "__main__":
    main()
