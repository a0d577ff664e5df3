"""Failures put between the store and its database: at any statement, before a commit, after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from service.conversations.access import OpenConversations

Make = Callable[[], BaseException]


def sqlite_error(message: str, name: str) -> sqlite3.OperationalError:
    """As the driver makes it."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    error.sqlite_errorcode = int(getattr(sqlite3, name))
    return error


SQLITE_FAULTS: list[tuple[Make, str]] = [
    (lambda: sqlite_error("database or disk is full", "SQLITE_FULL"), "storage_full"),
    (lambda: sqlite_error("disk I/O error", "SQLITE_IOERR"), "conversations_unavailable"),
    (lambda: sqlite_error("attempt to write a readonly database", "SQLITE_READONLY"), "conversations_unavailable"),
]


def postgres_faults() -> list[tuple[Make, str]]:
    import asyncpg

    return [
        (lambda: asyncpg.DiskFullError("no space left on device"), "storage_full"),
        (lambda: asyncpg.ConnectionDoesNotExistError("connection was closed"), "conversations_unavailable"),
        (lambda: asyncpg.ReadOnlySQLTransactionError("read-only transaction"), "conversations_unavailable"),
    ]


def faults_of(conversations: OpenConversations) -> list[tuple[Make, str]]:
    """How its database may fail, and the code that callers are told."""
    return SQLITE_FAULTS if conversations._database.is_sqlite else postgres_faults()


def engine_of(conversations: OpenConversations) -> Engine:
    """Of a database that has been used."""
    engine = conversations._database._engine
    assert engine is not None
    return engine.sync_engine


class Statements(list[tuple[str, Any]]):
    """What the database was asked, with its parameters."""


@contextmanager
def watched(conversations: OpenConversations, fail_at: int | None = None, make: Make = OSError) -> Iterator[Statements]:
    """Collects the statements; the one with the number `fail_at` fails instead of running."""
    seen = Statements()

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        seen.append((statement, parameters))
        if len(seen) - 1 == fail_at:
            raise make()

    engine = engine_of(conversations)
    event.listen(engine, "before_cursor_execute", look)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", look)


@contextmanager
def failing_commit(conversations: OpenConversations, number: int, *, is_done: bool) -> Iterator[list[bool]]:
    """The commit with this number fails, having been done or not: the list tells that it came to it.

    SQLAlchemy takes the error as the driver's own.
    """
    dialect = engine_of(conversations).dialect
    genuine: Any = dialect.do_commit
    make = faults_of(conversations)[1][0]
    num_commits = 0
    has_failed: list[bool] = []

    def commit(connection: Any) -> None:
        nonlocal num_commits
        num_commits += 1
        if num_commits - 1 != number:
            genuine(connection)
            return
        has_failed.append(True)
        if is_done:
            genuine(connection)
        raise make()

    dialect.do_commit = commit  # type: ignore[assignment, method-assign]  # the one seam between the ORM and the driver
    try:
        yield has_failed
    finally:
        dialect.do_commit = genuine  # type: ignore[method-assign]
