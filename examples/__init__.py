"""Runnable examples of sagas on DBOS."""
