"""A database that fails at any moment leaves nothing half done, is told by name, and is used again once it works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import CreateConversation
from contracts.errors import ConversationsUnavailable, StorageFull
from service.conversations.access import Conversations, OpenConversations
from service.conversations.location import Location
from tests.service.conversations.store_faults import engine_of, failing_commit, faults_of, watched
from tests.service.conversations.store_scene import (
    OPERATIONS,
    OWNER,
    READS,
    Operation,
    Scene,
    all_of_owner,
    contents,
    imported,
    set_up,
    wrong_conversations,
)

WRITES = sorted(OPERATIONS.keys() - READS)


async def num_statements(conversations: OpenConversations, operation: Operation) -> int:
    scene = await set_up(conversations)
    with watched(conversations) as seen:
        await operation(scene)
    await conversations.store.delete(OWNER, scene.id) if operation is not OPERATIONS["delete"] else None
    return len(seen)


async def outcome_at(scene: Scene, operation: Operation, fail_at: int) -> tuple[str | None, str]:
    """The code that the caller is told, and the one that is right."""
    faults = faults_of(scene.conversations)
    make, code = faults[fail_at % len(faults)]
    with watched(scene.conversations, fail_at, make):
        try:
            await operation(scene)
        except ConversationsUnavailable as error:
            return error.code, code
    return None, code


@pytest.mark.parametrize("name", OPERATIONS)
async def test_failure_at_any_statement_is_told_and_leaves_nothing_behind(
    conversations: OpenConversations, name: str
) -> None:
    num = await num_statements(conversations, OPERATIONS[name])
    scene = await set_up(conversations)
    before = await contents(scene), await all_of_owner(conversations)
    outcomes = [await outcome_at(scene, OPERATIONS[name], fail_at) for fail_at in range(num)]
    assert [told for told, _ in outcomes] == [code for _, code in outcomes]
    assert (await contents(scene), await all_of_owner(conversations)) == before
    await OPERATIONS[name](scene)
    assert await wrong_conversations(conversations) == []


@pytest.mark.parametrize("name", WRITES)
async def test_commit_that_fails_was_not_and_can_be_done_again(conversations: OpenConversations, name: str) -> None:
    scene = await set_up(conversations)
    before = await contents(scene), await all_of_owner(conversations)
    with failing_commit(conversations, 0, is_done=False), pytest.raises(ConversationsUnavailable):
        await OPERATIONS[name](scene)
    assert (await contents(scene), await all_of_owner(conversations)) == before
    await OPERATIONS[name](scene)
    assert await wrong_conversations(conversations) == []


@pytest.mark.parametrize("name", WRITES)
async def test_commit_whose_acknowledgement_is_lost_was_done_once(conversations: OpenConversations, name: str) -> None:
    scene = await set_up(conversations)
    with failing_commit(conversations, 0, is_done=True), pytest.raises(ConversationsUnavailable):
        await OPERATIONS[name](scene)
    lost = await all_of_owner(conversations)
    other = await set_up(conversations)
    await OPERATIONS[name](other)
    both = await all_of_owner(conversations)
    assert sorted(lost * 2) == both
    assert await wrong_conversations(conversations) == []


async def test_disk_that_fills_up_under_postgres_is_told_by_name(conversations: OpenConversations) -> None:
    await conversations.store.create(OWNER, CreateConversation())
    if conversations._database.is_sqlite:
        pytest.skip("a statement of PostgreSQL")

    async def fill(session: AsyncSession) -> None:
        await session.execute(text("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$"))

    with pytest.raises(StorageFull):
        await conversations._database.write(fill)


@contextmanager
def on_checkout(conversations: OpenConversations, pragma: str) -> Iterator[None]:
    """Whatever connection is used now obeys the pragma."""

    def set_it(connection: Any, *rest: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(pragma)
        cursor.close()

    engine = engine_of(conversations)
    event.listen(engine, "checkout", set_it)
    try:
        yield
    finally:
        event.remove(engine, "checkout", set_it)


class TestFile:
    """SQLite alone, with errors of its own making."""

    @pytest.fixture
    async def opened(self, tmp_path: Path) -> Any:
        owner = Conversations(Location(path=tmp_path / "kept.db"))
        opened = await owner.open()
        await opened.store.create(OWNER, CreateConversation(title="Before"))
        yield opened
        await owner.close()

    async def test_full_file_is_told_can_be_read_and_grows_again(self, opened: OpenConversations) -> None:
        scene, big = await set_up(opened), imported("x" * 100_000)
        with on_checkout(opened, "PRAGMA max_page_count=1"):
            with pytest.raises(StorageFull) as caught:
                await opened.store.restore(OWNER, big)
            assert caught.value.status == 507
            assert len(await contents(scene)) == 3
        assert await wrong_conversations(opened) == []
        with on_checkout(opened, f"PRAGMA max_page_count={1 << 30}"):
            await opened.store.restore(OWNER, big)
        assert ("T", 1) in await all_of_owner(opened)

    async def test_read_only_database_can_be_read_and_is_written_again(self, opened: OpenConversations) -> None:
        scene = await set_up(opened)
        with on_checkout(opened, "PRAGMA query_only=ON"):
            with pytest.raises(ConversationsUnavailable):
                await opened.store.delete(OWNER, scene.id)
            assert len(await contents(scene)) == 3
        with on_checkout(opened, "PRAGMA query_only=OFF"):
            await opened.store.delete(OWNER, scene.id)

    async def test_failures_under_load_leave_no_connection_behind(self, opened: OpenConversations) -> None:
        make, _ = faults_of(opened)[1]

        async def attempt(number: int) -> None:
            with suppress(ConversationsUnavailable):
                await opened.store.create(OWNER, CreateConversation(title=str(number)))

        with watched(opened, 7, make):
            await asyncio.gather(*(attempt(number) for number in range(40)))
        await asyncio.gather(*(opened.store.create(OWNER, CreateConversation(title="After")) for _ in range(10)))
        assert [title for title, _ in await all_of_owner(opened)].count("After") == 10
