"""`python -m examples.order_fulfillment`."""

from .demo import main

if __name__ == "__main__":
    raise SystemExit(main())
