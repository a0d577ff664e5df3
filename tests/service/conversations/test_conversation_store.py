"""Conversations are made, listed, searched, read, changed and removed; each owner meets its own only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from contracts.conversations import ChangeConversation, Conversation, CreateConversation, GenerationDefaults
from contracts.errors import ConversationNotFound, InvalidValue
from service.conversations.access import OpenConversations
from service.conversations.store import ConversationQuery, ConversationStore
from service.conversations.turn_types import Reply, TurnMessage

Use = Callable[[ConversationStore, str, str], Coroutine[Any, Any, object]]


async def say(conversations: OpenConversations, owner: str, conversation_id: str, text: str) -> None:
    """One turn, answered with `Yes.`"""
    claim, _ = await conversations.locks.acquire(owner, conversation_id)
    turn = await conversations.turns.post(claim, [TurnMessage(role="user", content=text)], None)
    await conversations.turns.finish(claim, turn, Reply(content="Yes.", model="tiny", finish_reason="stop"))
    conversations.locks.release(claim)


async def make(conversations: OpenConversations, owner: str, *texts: str) -> Conversation:
    made = await conversations.store.create(owner, CreateConversation())
    for text in texts:
        await say(conversations, owner, made.id, text)
    return made


async def ids(conversations: OpenConversations, owner: str, **query: Any) -> list[str]:
    found = await conversations.store.find(owner, ConversationQuery(**query))
    return [conversation.id for conversation in found.data]


async def test_made_conversation_is_read_as_it_was_made(conversations: OpenConversations) -> None:
    defaults = GenerationDefaults(temperature=0.0, max_tokens=7)
    wanted = CreateConversation(title="T", system_prompt="Be brief.", model="m", max_turns=3, generation=defaults)
    made = await conversations.store.create("me", wanted)
    read = await conversations.store.read("me", made.id)
    assert (read.title, read.system_prompt, read.model, read.max_turns) == ("T", "Be brief.", "m", 3)
    assert read.generation == defaults
    assert read.messages == []
    assert len(made.id) == len("conv_") + 32


async def test_messages_are_read_in_their_order(conversations: OpenConversations) -> None:
    made = await make(conversations, "me", "one", "two")
    read = await conversations.store.read("me", made.id)
    assert [(message.role, message.content) for message in read.messages] == [
        ("user", "one"),
        ("assistant", "Yes."),
        ("user", "two"),
        ("assistant", "Yes."),
    ]
    assert read.num_messages == 4
    assert read.messages[1].finish_reason == "stop"


async def test_title_is_the_beginning_of_the_first_message(conversations: OpenConversations) -> None:
    made = await make(conversations, "me", "  Tell\nme \x1b[31m" + "a" * 100, "second")
    title = (await conversations.store.read("me", made.id)).title
    assert title == ("Tell me [31m" + "a" * 100)[:50]


async def test_given_title_stays(conversations: OpenConversations) -> None:
    made = await conversations.store.create("me", CreateConversation(title="Mine"))
    await say(conversations, "me", made.id, "Hello")
    assert (await conversations.store.read("me", made.id)).title == "Mine"


async def test_list_shows_what_changed_last_first(conversations: OpenConversations) -> None:
    first = await make(conversations, "me", "a")
    second = await make(conversations, "me", "b")
    await asyncio.sleep(0.002)
    await say(conversations, "me", first.id, "again")
    assert await ids(conversations, "me") == [first.id, second.id]


async def test_pages_follow_each_other_without_gap_or_repetition(conversations: OpenConversations) -> None:
    made = {(await make(conversations, "me")).id for _ in range(5)}
    one = await conversations.store.find("me", ConversationQuery(limit=2))
    two = await conversations.store.find("me", ConversationQuery(limit=2, after=one.last_id))
    three = await conversations.store.find("me", ConversationQuery(limit=2, after=two.last_id))
    assert [page.has_more for page in (one, two, three)] == [True, True, False]
    assert {conversation.id for page in (one, two, three) for conversation in page.data} == made
    assert (one.first_id, one.last_id) == (one.data[0].id, one.data[1].id)


async def test_page_after_an_unknown_conversation_is_refused(conversations: OpenConversations) -> None:
    with pytest.raises(InvalidValue) as caught:
        await conversations.store.find("me", ConversationQuery(after="conv_x"))
    assert caught.value.param == "after"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("50%", True),
        ("5%%", False),
        ("a_b", True),
        ("a_c", False),
        ("b/c", True),
        ("b\\c", False),
        ("ÉLAN", True),
        ("straße 🚋", True),
        ("yes.", True),
        ("'; DROP TABLE quire_message; --", False),
    ],
)
async def test_search_takes_every_character_for_itself(
    conversations: OpenConversations, text: str, is_found: bool
) -> None:
    made = await make(conversations, "me", "50% of a_b/c with élan, Straße 🚋")
    assert await ids(conversations, "me", text=text) == [made.id] * is_found


async def test_search_looks_at_titles(conversations: OpenConversations) -> None:
    made = await conversations.store.create("me", CreateConversation(title="About Bees"))
    assert await ids(conversations, "me", text="bees") == [made.id]


async def test_change_touches_only_what_is_given(conversations: OpenConversations) -> None:
    made = await conversations.store.create("me", CreateConversation(title="T", system_prompt="S", model="m"))
    changed = await conversations.store.change("me", made.id, ChangeConversation(title="U", model=None))
    assert (changed.title, changed.system_prompt, changed.model) == ("U", "S", None)


async def test_null_limit_of_turns_is_the_default(conversations: OpenConversations) -> None:
    made = await conversations.store.create("me", CreateConversation(max_turns=2))
    assert (await conversations.store.change("me", made.id, ChangeConversation(max_turns=None))).max_turns == 50


async def test_deleted_conversation_is_gone_with_its_messages(conversations: OpenConversations) -> None:
    made = await make(conversations, "me", "secret")
    await conversations.store.delete("me", made.id)
    with pytest.raises(ConversationNotFound):
        await conversations.store.read("me", made.id)
    assert await ids(conversations, "me", text="secret") == []


USES: list[Use] = [
    lambda store, owner, one: store.read(owner, one),
    lambda store, owner, one: store.change(owner, one, ChangeConversation(title="X")),
    lambda store, owner, one: store.delete(owner, one),
]


@pytest.mark.parametrize("use", USES, ids=["read", "change", "delete"])
async def test_conversation_of_another_key_is_not_found(conversations: OpenConversations, use: Use) -> None:
    made = await make(conversations, "me", "mine")
    with pytest.raises(ConversationNotFound):
        await use(conversations.store, "you", made.id)
    assert await ids(conversations, "you") == await ids(conversations, "you", text="mine") == []
    assert (await conversations.store.read("me", made.id)).num_messages == 2


async def test_what_one_worker_wrote_another_reads(conversations: OpenConversations, others: OpenConversations) -> None:
    made = await make(conversations, "me", "hello")
    assert (await others.store.read("me", made.id)).messages[0].content == "hello"
