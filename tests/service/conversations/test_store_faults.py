"""A database that fails at any moment leaves nothing half done, is told by name, and is used again once it works."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
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


async def fail_at_each_statement(conversations: OpenConversations, operation: Operation) -> list[str]:
    """What is wrong."""
    num = await num_statements(conversations, operation)
    scene = await set_up(conversations)
    before = await contents(scene), await all_of_owner(conversations)
    outcomes = [await outcome_at(scene, operation, fail_at) for fail_at in range(num)]
    wrong = [f"statement {number}: {told}" for number, (told, code) in enumerate(outcomes) if told != code]
    if (await contents(scene), await all_of_owner(conversations)) != before:
        wrong.append("something was left behind")
    await operation(scene)
    return wrong + await wrong_conversations(conversations)


async def fail_before_commit(conversations: OpenConversations, operation: Operation) -> list[str]:
    scene = await set_up(conversations)
    before = await contents(scene), await all_of_owner(conversations)
    with failing_commit(conversations, 0, is_done=False), pytest.raises(ConversationsUnavailable):
        await operation(scene)
    wrong = [] if (await contents(scene), await all_of_owner(conversations)) == before else ["it was done"]
    await operation(scene)
    return wrong + await wrong_conversations(conversations)


async def fail_after_commit(conversations: OpenConversations, operation: Operation) -> list[str]:
    """What is done when nobody hears of it is the same as what is done else."""
    states = [Counter(await all_of_owner(conversations))]
    scene = await set_up(conversations)
    with failing_commit(conversations, 0, is_done=True), pytest.raises(ConversationsUnavailable):
        await operation(scene)
    states.append(Counter(await all_of_owner(conversations)))
    await operation(await set_up(conversations))
    states.append(Counter(await all_of_owner(conversations)))
    is_same = states[1] - states[0] == states[2] - states[1]
    return ([] if is_same else ["it was not done, or twice"]) + await wrong_conversations(conversations)


Trial = Callable[[OpenConversations, Operation], Awaitable[list[str]]]


@pytest.mark.parametrize("trial", [fail_at_each_statement, fail_before_commit, fail_after_commit])
async def test_failure_is_told_leaves_nothing_half_done_and_passes(
    conversations: OpenConversations, trial: Trial
) -> None:
    """One database sees all failures of all operations, one after the other."""
    await set_up(conversations)
    names = sorted(OPERATIONS if trial is fail_at_each_statement else OPERATIONS.keys() - READS)
    wrong = {name: await trial(conversations, OPERATIONS[name]) for name in names}
    assert {name: found for name, found in wrong.items() if found} == {}


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
