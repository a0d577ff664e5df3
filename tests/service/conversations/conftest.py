"""Databases for the tests of conversations: a file always, PostgreSQL where there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.conversations.access import Conversations, OpenConversations
from service.conversations.location import Location

TABLES = "quire_lease, quire_message, quire_conversation, quire_schema_version"


async def drop_tables(url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
    await connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def location(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Location]:
    """An empty database."""
    if request.param == "sqlite":
        yield Location(path=tmp_path / "data" / "conversations.db")
        return
    url: str = request.getfixturevalue("postgres_url")
    await drop_tables(url)
    yield Location(postgres_url=url.replace("postgresql:", "postgresql+asyncpg:"))
    await drop_tables(url)


@pytest.fixture
async def conversations(location: Location) -> AsyncIterator[OpenConversations]:
    """What one worker has of them."""
    owner = Conversations(location)
    yield await owner.open()
    await owner.close()


@pytest.fixture
async def others(location: Location) -> AsyncIterator[OpenConversations]:
    """What another worker has of the same."""
    owner = Conversations(location)
    yield await owner.open()
    await owner.close()
