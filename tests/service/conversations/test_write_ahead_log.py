"""SQLite's log stays short, and nothing that was deleted can be read in it or in the file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import ChangeConversation, CreateConversation
from contracts.errors import ConversationsUnavailable
from service.conversations import connections, write_ahead_log
from service.conversations.access import Conversations, OpenConversations
from service.conversations.location import Location
from service.conversations.turn_types import Claim, Reply, TurnMessage
from tests.service.conversations.store_scene import OWNER, imported, wrong_conversations

CANARY = "canary-that-sings"
SMALL_LOG_BYTES = 256 * 1024
WITHIN_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kept.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[OpenConversations]:
    owner = Conversations(Location(path=path))
    yield await owner.open()
    await owner.close()


@pytest.fixture
async def canary_id(opened: OpenConversations) -> str:
    """A conversation that holds the canary everywhere, between two others."""
    await opened.store.create(OWNER, CreateConversation(title="Before"))
    made = await opened.store.create(OWNER, CreateConversation(title=CANARY, system_prompt=CANARY * 500))
    claim = Claim(owner=OWNER, conversation_id=made.id, holder="h")
    await opened.turns.take(claim)
    turn = await opened.turns.post(claim, [TurnMessage(role="user", content=CANARY)], None)
    await opened.turns.finish(claim, turn, Reply(content=CANARY * 1000, model="m", finish_reason="stop"))
    await opened.store.create(OWNER, CreateConversation(title="After"))
    return made.id


def files_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def holders(path: Path) -> list[str]:
    """The files in which the canary can be read."""
    return [file.name for file in files_of(path) if CANARY.encode() in file.read_bytes()]


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


@contextmanager
def foreign_reader(path: Path) -> Iterator[None]:
    """Another program that reads on and on, in one transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM quire_message").fetchone()
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_deleted_conversation_is_gone_from_all_files(
    opened: OpenConversations, canary_id: str, path: Path
) -> None:
    assert holders(path) != []
    await opened.store.delete(OWNER, canary_id)
    assert holders(path) == []
    assert await wrong_conversations(opened) == []


async def test_messages_that_are_cut_off_and_texts_that_are_changed_are_gone(
    opened: OpenConversations, canary_id: str, path: Path
) -> None:
    claim = Claim(owner=OWNER, conversation_id=canary_id, holder="h")
    await opened.turns.take(claim)
    first = (await opened.store.read(OWNER, canary_id)).messages[0].id
    await opened.turns.cut(claim, first)
    assert holders(path) != []
    await opened.store.change(OWNER, canary_id, ChangeConversation(title="Now", system_prompt=None))
    assert holders(path) == []


async def test_deleted_text_is_gone_once_a_reader_that_stood_in_the_way_has_ended(
    opened: OpenConversations, canary_id: str, path: Path
) -> None:
    with foreign_reader(path):
        await opened.store.delete(OWNER, canary_id)
        assert holders(path) != []
        await opened.store.create(OWNER, CreateConversation())
    await until(lambda: holders(path) == [])


async def test_deleted_text_is_gone_though_the_server_was_killed_before_it_could_see_to_it(
    opened: OpenConversations, canary_id: str, path: Path, tmp_path: Path
) -> None:
    """What a kill leaves is what the disk holds at that moment."""
    image = tmp_path / "image" / path.name
    with foreign_reader(path):
        await opened.store.delete(OWNER, canary_id)
        shutil.copytree(path.parent, image.parent)
    assert holders(image) != []
    owner = Conversations(Location(path=image))
    again = await owner.open()
    await again.store.create(OWNER, CreateConversation())
    assert holders(image) == []
    await owner.close()


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead_log, "MAX_LOG_BYTES", SMALL_LOG_BYTES)


async def write_much(opened: OpenConversations, num: int) -> None:
    for _ in range(num):
        await opened.store.restore(OWNER, imported("x" * 64 * 1024))


async def test_log_stays_short_under_readers_that_overlap(
    opened: OpenConversations, small_log: None, path: Path
) -> None:
    made = await opened.store.restore(OWNER, imported(*["y"] * 500))
    is_over = asyncio.Event()
    sizes: list[int] = []

    async def read() -> None:
        while not is_over.is_set():
            await opened.store.read(OWNER, made.id)
            sizes.append(log_bytes(path))

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await write_much(opened, 60)
    is_over.set()
    await asyncio.gather(*readers)
    assert max(sizes) < 6 * SMALL_LOG_BYTES < 60 * 64 * 1024 / 2


async def test_log_that_a_long_reader_let_grow_is_short_again_once_it_has_ended(
    opened: OpenConversations, small_log: None, path: Path
) -> None:
    await write_much(opened, 1)
    with foreign_reader(path):
        await write_much(opened, 30)
        assert log_bytes(path) > 4 * SMALL_LOG_BYTES
    await until(lambda: log_bytes(path) <= SMALL_LOG_BYTES)


async def test_transaction_that_lasts_too_long_is_ended(
    opened: OpenConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no request can keep the log from being emptied, or the connections from others."""
    await opened.store.create(OWNER, CreateConversation())
    monkeypatch.setattr(connections, "COMMAND_TIMEOUT_S", 0.1)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    async def ask(session: AsyncSession) -> Any:
        return await session.scalar(text(endless))

    async with asyncio.timeout(WITHIN_S):
        asks = [opened._database.read(ask, timeout_s=WITHIN_S) for _ in range(connections.POOL_SIZE)]
        outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConversationsUnavailable] * connections.POOL_SIZE
    monkeypatch.undo()
    await opened.store.create(OWNER, CreateConversation())


async def test_log_is_for_its_user_alone_as_the_file_is(opened: OpenConversations, path: Path) -> None:
    await opened.store.create(OWNER, CreateConversation())
    assert {file.name: file.stat().st_mode & 0o777 for file in files_of(path)} == {
        "kept.db": 0o600,
        "kept.db-shm": 0o600,
        "kept.db-wal": 0o600,
    }
    assert path.parent.stat().st_mode & 0o777 == 0o700
