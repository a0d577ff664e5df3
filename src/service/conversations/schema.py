"""Brings a database to the newest tables, one process at a time; blocking, to be called in a thread.

The migrations themselves are Alembic's, run through advanced-alchemy's commands; Alembic is imported only where there
is something to migrate.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from advanced_alchemy.config import SQLAlchemyAsyncConfig
from sqlalchemy import Connection, inspect, text

from service.conversations.connections import CONNECT_TIMEOUT_S, IS_WRITE, make_config
from service.conversations.location import Location
from service.conversations.tables import REVISION, VERSION_TABLE

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_POSTGRES_LOCK: Final = 0x7175697265  # "quire"
_POLL_S = 0.02


class SchemaNotKnown(OSError):
    """The tables are those of another release, which this one does not know."""


def prepare(location: Location) -> None:
    """Make the file where there is none, and migrate. Raises SchemaNotKnown or what the driver raises."""
    if location.path is not None:
        _make_file(location.path)
        _use_write_ahead_log(location.path)
    asyncio.run(_migrate(location))


def _make_file(path: Path) -> None:
    """For this user alone: SQLite gives its other files the same permissions."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _use_write_ahead_log(path: Path) -> None:
    """The file remembers it. SQLite does not wait for others by itself here, so this does."""
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    with closing(sqlite3.connect(path, timeout=CONNECT_TIMEOUT_S, isolation_level=None)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(_POLL_S)


async def _migrate(location: Location) -> None:
    config = make_config(location, MIGRATIONS)
    engine = config.get_engine()
    try:
        async with engine.connect() as connection:
            if await connection.run_sync(_is_current):
                return
        async with engine.execution_options(**{IS_WRITE: True}).begin() as connection:
            if location.path is None:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            if not await connection.run_sync(_is_current):  # else another process has just done it
                await connection.run_sync(_upgrade, config)
    finally:
        await engine.dispose()


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 (a constant)
    if found is not None and str(found) > REVISION:
        raise SchemaNotKnown(
            f"The conversations' tables have revision {found}, of a later release; this one knows up to {REVISION}."
        )
    return found == REVISION


def _upgrade(connection: Connection, config: SQLAlchemyAsyncConfig) -> None:
    """In the caller's transaction, so that a process that is killed leaves nothing half done."""
    from advanced_alchemy.alembic.commands import AlembicCommands

    commands = AlembicCommands(config)
    commands.config.attributes["connection"] = connection
    commands.upgrade()
