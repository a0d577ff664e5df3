"""Turns do not interleave, retries do not repeat, and a process that is gone keeps nobody out for long."""

from __future__ import annotations

import asyncio

import pytest

from contracts.conversations import MAX_STORED_MESSAGES, MAX_TEXT_BYTES, CreateConversation
from contracts.errors import ConversationBusy, ConversationFull, ConversationNotFound
from service.conversations.access import OpenConversations
from service.conversations.exchange import ImportedConversation, ImportedMessage
from service.conversations.locks import TurnLocks
from service.conversations.turn_store import TurnStore
from service.conversations.turn_types import Reply, TurnMessage

HELLO = [TurnMessage(role="user", content="Hello")]
REPLY = Reply(content="Hi!", model="tiny", finish_reason="stop")


@pytest.fixture
async def conversation_id(conversations: OpenConversations) -> str:
    return (await conversations.store.create("me", CreateConversation())).id


async def texts(conversations: OpenConversations, conversation_id: str) -> list[str]:
    return [message.content for message in (await conversations.store.read("me", conversation_id)).messages]


async def take_turn(conversations: OpenConversations, conversation_id: str, text: str) -> None:
    claim, _ = await conversations.locks.acquire("me", conversation_id)
    turn = await conversations.turns.post(claim, [TurnMessage(role="user", content=text)], None)
    await asyncio.sleep(0.01)
    reply = Reply(content=f"to {text}", model="tiny", finish_reason="stop")
    await conversations.turns.finish(claim, turn, reply)
    conversations.locks.release(claim)


async def test_posts_of_one_process_are_served_in_the_order_of_their_coming(
    conversations: OpenConversations, conversation_id: str
) -> None:
    names = [str(number) for number in range(6)]
    await asyncio.gather(*(take_turn(conversations, conversation_id, name) for name in names))
    assert await texts(conversations, conversation_id) == [text for name in names for text in (name, f"to {name}")]


async def test_posts_of_two_processes_do_not_interleave(
    conversations: OpenConversations, others: OpenConversations, conversation_id: str
) -> None:
    sides = [conversations, others] * 3
    await asyncio.gather(*(take_turn(side, conversation_id, str(index)) for index, side in enumerate(sides)))
    said = await texts(conversations, conversation_id)
    assert sorted(said[::2]) == [str(index) for index in range(6)]
    assert said[1::2] == [f"to {text}" for text in said[::2]]


async def test_post_that_waits_too_long_is_refused(
    conversations: OpenConversations, others: OpenConversations, conversation_id: str
) -> None:
    claim, _ = await others.locks.acquire("me", conversation_id)
    impatient = TurnLocks(conversations.turns, max_wait_s=0.2)
    with pytest.raises(ConversationBusy) as caught:
        await impatient.acquire("me", conversation_id)
    assert caught.value.retry_after_s is not None
    await others.turns.release(claim)
    others.locks.release(claim)
    claim, _ = await impatient.acquire("me", conversation_id)
    impatient.release(claim)
    await impatient.close()


async def test_lease_of_a_process_that_is_gone_ends_by_itself(
    conversations: OpenConversations, others: OpenConversations, conversation_id: str
) -> None:
    short = TurnStore(others.turns._database, lease_s=0.3)
    gone = TurnLocks(short, renew_s=60)
    claim, _ = await gone.acquire("me", conversation_id)
    await gone.close()
    async with asyncio.timeout(3):
        mine, _ = await conversations.locks.acquire("me", conversation_id)
    with pytest.raises(ConversationBusy):
        await short.post(claim, HELLO, None)
    conversations.locks.release(mine)


async def test_lease_is_renewed_while_its_turn_lasts(
    conversations: OpenConversations, others: OpenConversations, conversation_id: str
) -> None:
    busy = TurnLocks(TurnStore(others.turns._database, lease_s=0.4), renew_s=0.1)
    claim, _ = await busy.acquire("me", conversation_id)
    impatient = TurnLocks(TurnStore(conversations.turns._database, lease_s=0.4), max_wait_s=1.0)
    with pytest.raises(ConversationBusy):
        await impatient.acquire("me", conversation_id)
    busy.release(claim)
    await busy.close()


async def test_lease_from_before_the_clock_was_set_back_counts_as_ended(
    conversations: OpenConversations, others: OpenConversations, conversation_id: str
) -> None:
    ahead = TurnStore(others.turns._database, lease_s=3600)
    claim, _ = await TurnLocks(ahead, renew_s=3600).acquire("me", conversation_id)
    async with asyncio.timeout(3):
        mine, _ = await conversations.locks.acquire("me", conversation_id)
    assert mine.holder != claim.holder
    conversations.locks.release(mine)


async def test_stranger_is_turned_away_without_waiting(conversations: OpenConversations, conversation_id: str) -> None:
    claim, _ = await conversations.locks.acquire("me", conversation_id)
    async with asyncio.timeout(1):
        with pytest.raises(ConversationNotFound):
            await conversations.locks.acquire("you", conversation_id)
    conversations.locks.release(claim)


async def test_message_posted_again_after_a_failure_stands_once(
    conversations: OpenConversations, conversation_id: str
) -> None:
    claim, history = await conversations.locks.acquire("me", conversation_id)
    turn = await conversations.turns.post(claim, HELLO, history.retried_turn(HELLO))
    await conversations.turns.mark(claim, turn, "engine_error")
    conversations.locks.release(claim)
    failed = await conversations.store.read("me", conversation_id)
    assert [message.error for message in failed.messages] == ["engine_error"]

    claim, history = await conversations.locks.acquire("me", conversation_id)
    turn = await conversations.turns.post(claim, HELLO, history.retried_turn(HELLO))
    await conversations.turns.finish(claim, turn, REPLY)
    conversations.locks.release(claim)
    mended = await conversations.store.read("me", conversation_id)
    assert [(message.content, message.error) for message in mended.messages] == [("Hello", None), ("Hi!", None)]


async def test_another_message_after_a_failure_is_a_new_turn(
    conversations: OpenConversations, conversation_id: str
) -> None:
    claim, _ = await conversations.locks.acquire("me", conversation_id)
    await conversations.turns.mark(claim, await conversations.turns.post(claim, HELLO, None), "engine_error")
    conversations.locks.release(claim)
    claim, history = await conversations.locks.acquire("me", conversation_id)
    assert history.retried_turn([TurnMessage(role="user", content="Hello?")]) is None
    assert history.answered_turns(1) == []
    conversations.locks.release(claim)


async def test_same_message_after_a_reply_is_a_new_turn(conversations: OpenConversations, conversation_id: str) -> None:
    await take_turn(conversations, conversation_id, "Hello")
    claim, history = await conversations.locks.acquire("me", conversation_id)
    assert history.retried_turn(HELLO) is None
    conversations.locks.release(claim)


async def test_reply_to_a_deleted_conversation_is_told_so(
    conversations: OpenConversations, conversation_id: str
) -> None:
    claim, _ = await conversations.locks.acquire("me", conversation_id)
    turn = await conversations.turns.post(claim, HELLO, None)
    await conversations.store.delete("me", conversation_id)
    with pytest.raises(ConversationNotFound):
        await conversations.turns.finish(claim, turn, REPLY)
    conversations.locks.release(claim)


def imported(num_messages: int, text: str) -> ImportedConversation:
    message = ImportedMessage(
        role="assistant", content=text, turn=1, created_ms=0, model=None, finish_reason=None, error=None
    )
    return ImportedConversation(
        title="T",
        system_prompt=None,
        model=None,
        max_turns=50,
        generation=None,
        created_ms=0,
        updated_ms=0,
        messages=[message] * num_messages,
    )


@pytest.mark.parametrize("full", [imported(MAX_STORED_MESSAGES - 1, "a"), imported(1, "a" * MAX_TEXT_BYTES)])
async def test_full_conversation_takes_no_more(conversations: OpenConversations, full: ImportedConversation) -> None:
    made = await conversations.store.restore("me", full)
    claim, _ = await conversations.locks.acquire("me", made.id)
    with pytest.raises(ConversationFull):
        await conversations.turns.post(claim, HELLO, None)
    conversations.locks.release(claim)


async def test_nothing_is_remembered_of_conversations_that_are_free(
    conversations: OpenConversations, conversation_id: str
) -> None:
    await take_turn(conversations, conversation_id, "Hello")
    locks = conversations.locks
    assert (locks._locks, locks._num_users, locks._held) == ({}, {}, {})
