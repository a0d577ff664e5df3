"""Old tables become the newest with all they hold, once, whoever is killed meanwhile; newer ones are left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import GenerationDefaults
from contracts.errors import ConversationsUnavailable
from service.conversations.access import Conversations, OpenConversations
from service.conversations.connections import make_config
from service.conversations.database import Database
from service.conversations.location import Location
from service.conversations.schema import MIGRATIONS
from service.conversations.tables import REVISION, VERSION_TABLE, ConversationRow
from service.conversations.turn_types import Claim, Reply, TurnMessage
from tests.service.conversations.killed_migration import NEVER, run_migrations
from tests.service.conversations.store_scene import wrong_conversations

OLD = "conv_00000000000000000000000000000001"
OLD_SCHEMA = (Path(__file__).parent / "schema_0001.sql").read_text("utf-8")


@pytest.fixture
async def old(location: Location) -> Location:
    """As a server of the first release has left it."""
    if location.path is not None:
        location.path.parent.mkdir()
        with closing(sqlite3.connect(location.path)) as connection:
            connection.executescript(OLD_SCHEMA)
        return location
    import asyncpg

    connection = await asyncpg.connect((location.postgres_url or "").replace("+asyncpg", ""))
    await connection.execute(OLD_SCHEMA)
    await connection.close()
    return location


async def opened_at(location: Location) -> tuple[Conversations, OpenConversations]:
    owner = Conversations(location)
    return owner, await owner.open()


async def check(location: Location) -> None:
    """The old conversation is there, it goes on, and the tables are those that the code knows."""
    owner, opened = await opened_at(location)
    found = await opened.store.read("ann", OLD)
    assert (found.title, found.generation) == ("Trees", GenerationDefaults(temperature=0.5))
    assert [message.content for message in found.messages] == ["Name a tree.", "Oak."]
    claim = Claim(owner="ann", conversation_id=OLD, holder="h")
    await opened.turns.take(claim)
    turn = await opened.turns.post(claim, [TurnMessage(role="user", content="Another.")], None, "key")
    await opened.turns.finish(claim, turn, Reply(content="Elm.", model="tiny", finish_reason="stop"))
    assert await wrong_conversations(opened) == []
    assert await opened._database.read(differences) == []
    await owner.close()


async def differences(session: AsyncSession) -> list[Any]:
    def compare(connection: Connection) -> list[Any]:
        options = {"version_table": VERSION_TABLE, "include_name": is_ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), ConversationRow.metadata))

    return await (await session.connection()).run_sync(compare)


def is_ours(name: str | None, kind: str, parents: Any) -> bool:
    return kind != "table" or str(name).startswith("quire_")


async def test_first_release_becomes_the_newest(old: Location) -> None:
    await check(old)


async def test_migration_that_is_killed_before_any_statement_is_done_by_the_next(old: Location) -> None:
    """Each process is killed three statements later, until they come to the end."""
    exit_codes = await asyncio.to_thread(run_migrations, old, range(0, 40, 3))
    num_killed = exit_codes.count(-9)
    assert exit_codes == [-9] * num_killed + [0] * (14 - num_killed)
    assert 3 < num_killed < 14
    await check(old)


async def test_new_database_whose_makers_are_killed_is_made_by_the_next(location: Location) -> None:
    exit_codes = await asyncio.to_thread(run_migrations, location, [1, 5, 9, 13, NEVER])
    assert exit_codes[0] == -9
    assert exit_codes[-1] == 0
    assert await revisions(location) == [REVISION]


async def test_of_several_starters_one_migrates(old: Location) -> None:
    assert await asyncio.to_thread(run_migrations, old, [NEVER] * 3, is_together=True) == [0] * 3
    assert await revisions(old) == [REVISION]
    await check(old)


async def revisions(location: Location) -> list[str]:
    database = Database(location)

    async def ask(session: AsyncSession) -> list[str]:
        return list(await session.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")))  # noqa: S608 (a constant)

    found = await database.read(ask)
    await database.close()
    return found


async def test_database_of_a_later_release_is_refused_with_its_reason(
    old: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    await check(old)
    engine = make_config(old, MIGRATIONS).get_engine()
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))  # noqa: S608 (a constant)
    await engine.dispose()
    owner, opened = await opened_at(old)
    with pytest.raises(ConversationsUnavailable, match=rf"revision 0999, of a later release.*up to {REVISION}"):
        await opened.store.read("ann", OLD)
    assert "0999" in capsys.readouterr().out
    await owner.close()
    assert await revisions_as_they_are(old) == ["0999"]


async def revisions_as_they_are(location: Location) -> list[str]:
    """Without opening it as a server does."""
    engine = make_config(location, MIGRATIONS).get_engine()
    async with engine.connect() as connection:
        found = await connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
        revisions = list(found)
    await engine.dispose()
    return revisions
