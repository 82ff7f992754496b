"""Benchmarks: the library beside the same thing written by hand in DBOS. `python -m benchmarks`."""
