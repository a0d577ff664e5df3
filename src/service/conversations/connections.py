"""Engines of SQLAlchemy for a Location: how connections are made, what each sets, how transactions begin.

Every acknowledged write is on the disk: SQLite keeps a write-ahead log that each commit flushes (synchronous=FULL);
PostgreSQL does so by its own default. What is deleted is overwritten with zeros in SQLite's file; `write_ahead_log`
sees to its log.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.config.engine import EngineConfig
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from service.conversations.location import Location
from service.conversations.tables import VERSION_TABLE

CONNECT_TIMEOUT_S: Final = 1.5
"""Until a server must have answered, or another writer must have left the file."""
COMMAND_TIMEOUT_S: Final = 10.0
"""Of a statement in PostgreSQL, of a whole transaction in SQLite: what reads keeps the log from being emptied."""
POOL_SIZE: Final = 4
POOL_TIMEOUT_S: Final = 2
IS_WRITE: Final = "quire_is_write"
"""Execution option of transactions that will write."""
_DEADLINE: Final = "quire_deadline"
_STEPS_PER_LOOK: Final = 100_000
"""Of SQLite's virtual machine, about a millisecond."""
_PRAGMAS: Final = (
    "foreign_keys=ON",
    "synchronous=FULL",
    "secure_delete=ON",
    "temp_store=MEMORY",  # sorting must leave no text in /tmp
)


class _Deadline:
    """When the transaction on one connection of SQLite has to be over; written by its begin, read by its thread."""

    __slots__ = ("at_s",)

    def __init__(self) -> None:
        self.at_s = float("inf")

    def is_over(self) -> bool:
        """Asked by SQLite within statements; where it is, the statement fails."""
        return time.monotonic() > self.at_s


def driver_errors(location: Location) -> tuple[type[BaseException], ...]:
    """What a database that does not serve may raise; asyncpg's own errors escape SQLAlchemy while it connects."""
    errors: tuple[type[BaseException], ...] = (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)
    if location.postgres_url is None:
        return errors
    import asyncpg

    return (*errors, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def make_config(location: Location, script_location: Path) -> SQLAlchemyAsyncConfig:
    """The engine, made at first use, and the migrations; statements and their parameters are never logged."""
    config = SQLAlchemyAsyncConfig(
        connection_string=_url(location).render_as_string(hide_password=False),
        engine_config=EngineConfig(
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=location.path is None,
            connect_args=_connect_args(location),
        ),
        alembic_config=AlembicAsyncConfig(
            script_config="", script_location=str(script_location), version_table_name=VERSION_TABLE
        ),
    )
    if location.path is not None:
        engine = config.get_engine().sync_engine
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return config


def _url(location: Location) -> URL:
    if location.path is not None:
        return URL.create("sqlite+aiosqlite", database=str(location.path))
    url = make_url(location.postgres_url or "")
    if (sslmode := url.query.get("sslmode")) is not None:  # libpq's name, which asyncpg's connect calls ssl
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    return url


def _connect_args(location: Location) -> dict[str, Any]:
    """For SQLite: the driver begins no transactions of its own; see `_begin_sqlite`."""
    if location.path is not None:
        return {"timeout": CONNECT_TIMEOUT_S, "isolation_level": None}
    return {"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S}


def _set_up_sqlite(connection: Any, entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    deadline = entry.info[_DEADLINE] = _Deadline()
    connection.run_async(lambda driver: driver.set_progress_handler(deadline.is_over, _STEPS_PER_LOOK))
    # SQLite's own function knows ASCII only; searching is to find É by é.
    connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that begins as a reader is refused without waiting when it first writes."""
    connection.info[_DEADLINE].at_s = time.monotonic() + COMMAND_TIMEOUT_S
    is_write = connection.get_execution_options().get(IS_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
