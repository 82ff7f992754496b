"""The services' database, and what every call of a service goes through."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

P = ParamSpec("P")
R = TypeVar("R")

LATENCY = 0.03
"""Seconds that a call takes to reach a service, and its answer to come back."""

open_session: sessionmaker[Session] = sessionmaker()


class RefusedError(Exception):
    """A service says no, and will say no again."""


class NothingToUndoError(RefusedError):
    """Nothing was done under this key, so there is nothing to undo."""


class Record(DeclarativeBase):
    """A row of some service."""


class Keyed:
    """The columns of whatever a service does at most once for a key."""

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    order_id: Mapped[str]
    undone: Mapped[bool] = mapped_column(default=False)
    repeats: Mapped[int] = mapped_column(default=0)
    """Calls that came again and changed nothing: doing it, or undoing it."""


K = TypeVar("K", bound=Keyed)


def recall(session: Session, kind: type[K], key: str) -> K | None:
    """What an earlier call has done under `key`, if there was one."""
    done = _locked(session, kind, key)
    if done is not None:
        done.repeats += 1
    return done


def take_back(session: Session, kind: type[K], key: str) -> K | None:
    """
    Mark what was done under `key` as undone; None where an earlier call has.

    Raises:
        NothingToUndoError: Nothing was done.
    """
    done = _locked(session, kind, key)
    if done is None:
        raise NothingToUndoError(f"no {kind.__name__} was made under {key!r}")
    if done.undone:
        done.repeats += 1
        return None
    done.undone = True
    return done


def _locked(session: Session, kind: type[K], key: str) -> K | None:
    by_key = sa.select(kind).where(kind.key == key).with_for_update()
    return session.scalars(by_key).one_or_none()


def remote(fn: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Make `fn` a call of a service: some way off, and one transaction at the other end."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        time.sleep(LATENCY)
        try:
            with open_session.begin() as session:
                result = fn(session, *args, **kwargs)
        except IntegrityError:
            # Another call under this key was faster by a hair: its row can be seen now.
            with open_session.begin() as session:
                result = fn(session, *args, **kwargs)
        time.sleep(LATENCY)
        return result

    return call


@contextmanager
def connected(url: str) -> Iterator[sa.Engine]:
    """Have the services work on the database at `url`, and make their tables there."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        _serialise_writers(engine)
    Record.metadata.create_all(engine)
    open_session.configure(bind=engine)
    try:
        yield engine
    finally:
        open_session.configure(bind=None)
        engine.dispose()


def _serialise_writers(engine: sa.Engine) -> None:
    """Have SQLite wait for its one write lock, where by default it fails on a conflict."""

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("PRAGMA journal_mode = WAL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
