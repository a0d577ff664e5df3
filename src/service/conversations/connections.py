"""Engines of SQLAlchemy for a Location: how connections are made, what each sets, how transactions begin.

Every acknowledged write is on the disk: SQLite keeps a write-ahead log that each commit flushes (synchronous=FULL);
PostgreSQL does so by its own default.
"""

from __future__ import annotations

import sqlite3
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
POOL_SIZE: Final = 4
POOL_TIMEOUT_S: Final = 2
IS_WRITE: Final = "quire_is_write"
"""Execution option of transactions that will write."""


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
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
    # SQLite's own function knows ASCII only; searching is to find É by é.
    connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that begins as a reader is refused without waiting when it first writes."""
    is_write = connection.get_execution_options().get(IS_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
