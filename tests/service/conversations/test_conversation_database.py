"""The database is made and migrated once however many come, fails within seconds, and heals by itself."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.errors import ConversationsUnavailable
from service.conversations.connections import make_config
from service.conversations.database import Database
from service.conversations.location import Location
from service.conversations.schema import MIGRATIONS, prepare
from service.conversations.tables import REVISION, VERSION_TABLE, ConversationRow

WITHIN_S = 4.0
QUERY = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 (a constant)


async def ask(session: AsyncSession) -> Any:
    return await session.scalar(text(QUERY))


async def test_many_that_come_at_once_find_it_made_once(location: Location) -> None:
    databases = [Database(location, timeout_s=30) for _ in range(6)]
    assert await asyncio.gather(*(database.read(ask) for database in databases)) == [REVISION] * 6
    await asyncio.gather(*(database.close() for database in databases))


async def test_migrations_make_the_tables_that_the_code_knows(location: Location) -> None:
    await asyncio.to_thread(prepare, location)
    engine = make_config(location, MIGRATIONS).get_engine()

    def differences(connection: Connection) -> list[Any]:
        options = {"version_table": VERSION_TABLE, "include_name": is_ours}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, ConversationRow.metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def is_ours(name: str | None, kind: str, parents: Any) -> bool:
    return kind != "table" or str(name).startswith("quire_")


def test_newest_migration_is_the_one_that_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


async def test_database_of_a_later_release_is_left_alone(location: Location) -> None:
    await asyncio.to_thread(prepare, location)
    database = Database(location)

    async def age(session: AsyncSession) -> None:
        await session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608 (a constant)

    await database.write(age)
    await database.close()
    later = Database(location)
    with pytest.raises(ConversationsUnavailable):
        await later.read(ask)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture
async def database(path: Path) -> Any:
    database = Database(Location(path=path))
    yield database
    await database.close()


async def test_every_commit_is_flushed(database: Database) -> None:
    async def pragmas(session: AsyncSession) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        return [await session.scalar(text(f"PRAGMA {name}")) for name in names]

    assert await database.read(pragmas) == ["wal", 2, 1, 1]


@pytest.mark.slow
async def test_file_that_another_program_keeps_locked_is_given_up_within_seconds(
    database: Database, path: Path
) -> None:
    await database.read(ask)
    began_s = time.monotonic()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        attempts = [asyncio.create_task(database.write(ask)) for _ in range(5)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConversationsUnavailable] * 5
    assert time.monotonic() - began_s < WITHIN_S
    assert await database.write(ask) == REVISION


async def test_reader_does_not_wait_for_a_writer(database: Database, path: Path) -> None:
    await database.read(ask)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await database.read(ask) == REVISION


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://quire:sesame-7@127.0.0.1:9/talk",
        "postgresql+asyncpg://quire:sesame-7@nowhere.invalid/talk",
    ],
)
async def test_server_that_is_not_there_is_given_up_within_seconds(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("asyncpg")
    database = Database(Location(postgres_url=url))
    began_s = time.monotonic()
    with pytest.raises(ConversationsUnavailable) as caught:
        await database.read(ask)
    assert time.monotonic() - began_s < WITHIN_S
    assert "sesame" not in caught.value.message + capsys.readouterr().out


async def test_transaction_goes_on_where_its_caller_is_cancelled(database: Database) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def write(session: AsyncSession) -> None:
        has_begun.set()
        await may_end.wait()
        await session.execute(text("CREATE TABLE proof (a INTEGER)"))

    caller = asyncio.create_task(database.write(write))
    await has_begun.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    may_end.set()

    async def count(session: AsyncSession) -> Any:
        return await session.scalar(text("SELECT count(*) FROM proof"))

    await database.write(ask)
    assert await database.read(count) == 0
