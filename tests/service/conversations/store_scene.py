"""Every operation of the store on a conversation made for it, and what must hold of any database afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import ChangeConversation, CreateConversation
from service.conversations.access import OpenConversations
from service.conversations.exchange import ImportedConversation, ImportedMessage
from service.conversations.store import ConversationQuery
from service.conversations.turn_types import Claim, Reply, TurnMessage

OWNER = "owner-of-the-scene"
HOLDER = "holder-of-the-scene"
FIRST = [TurnMessage(role="user", content="First é")]
SECOND = [TurnMessage(role="user", content="Second")]
THIRD = [TurnMessage(role="user", content="Third")]
REPLY = Reply(content="Yes 🚋.", model="tiny", finish_reason="stop")

WRONG_COUNTS = """
SELECT id FROM (
  SELECT c.id, c.num_messages, c.num_bytes, c.num_turns, count(m.id) AS n, coalesce(min(m.position), 1) AS first,
    coalesce(max(m.position), 0) AS last, coalesce(max(m.turn), 0) AS turns, coalesce(sum({length}), 0) AS bytes
  FROM quire_conversation c LEFT JOIN quire_message m ON m.conversation_id = c.id
  GROUP BY c.id, c.num_messages, c.num_bytes, c.num_turns
) AS found
WHERE num_messages <> n OR first <> 1 OR last <> n OR turns <> num_turns OR bytes <> num_bytes
"""
NUM_BYTES = {True: "length(CAST(m.content AS BLOB))", False: "octet_length(m.content)"}


class Scene(msgspec.Struct, frozen=True):
    """A conversation with an answered turn (key `k1`) and one without a reply (key `k2`), and its lease."""

    conversations: OpenConversations
    claim: Claim
    first_message_id: str

    @property
    def id(self) -> str:
        return self.claim.conversation_id


async def set_up(conversations: OpenConversations) -> Scene:
    """A new one."""
    made = await conversations.store.create(OWNER, CreateConversation())
    claim = Claim(owner=OWNER, conversation_id=made.id, holder=HOLDER)
    turns = conversations.turns
    await turns.take(claim)
    await turns.finish(claim, await turns.post(claim, FIRST, None, "k1"), REPLY)
    await turns.take(claim)
    await turns.post(claim, SECOND, None, "k2")
    return Scene(conversations, claim, (await conversations.store.read(OWNER, made.id)).messages[0].id)


def imported(*contents: str) -> ImportedConversation:
    messages = [
        ImportedMessage(
            role="user", content=one, turn=turn, created_ms=5, model=None, finish_reason=None, error="engine_error"
        )
        for turn, one in enumerate(contents, start=1)
    ]
    return ImportedConversation(
        title="T",
        system_prompt="S",
        model=None,
        max_turns=50,
        generation=None,
        created_ms=5,
        updated_ms=6,
        messages=messages,
    )


Operation = Callable[[Scene], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "create": lambda on: on.conversations.store.create(OWNER, CreateConversation(title="T")),
    "restore": lambda on: on.conversations.store.restore(OWNER, imported(*["a"] * 300)),
    "find": lambda on: on.conversations.store.find(OWNER, ConversationQuery()),
    "find by text": lambda on: on.conversations.store.find(OWNER, ConversationQuery(text="É")),
    "find page": lambda on: on.conversations.store.find(OWNER, ConversationQuery(after=on.id, text="first")),
    "read": lambda on: on.conversations.store.read(OWNER, on.id),
    "change": lambda on: on.conversations.store.change(OWNER, on.id, ChangeConversation(title="Changed")),
    "delete": lambda on: on.conversations.store.delete(OWNER, on.id),
    "take": lambda on: on.conversations.turns.take(on.claim),
    "renew": lambda on: on.conversations.turns.renew(HOLDER, [on.id]),
    "release": lambda on: on.conversations.turns.release(on.claim),
    "find keyed": lambda on: on.conversations.turns.find_keyed(on.claim, "k1"),
    "post": lambda on: on.conversations.turns.post(on.claim, THIRD, None, "k3"),
    "post again": lambda on: on.conversations.turns.post(on.claim, SECOND, 2, "k2"),
    "finish": lambda on: on.conversations.turns.finish(on.claim, 2, REPLY),
    "mark": lambda on: on.conversations.turns.mark(on.claim, 2, "engine_error"),
    "cut": lambda on: on.conversations.turns.cut(on.claim, on.first_message_id),
}
READS = frozenset({"find", "find by text", "find page", "read", "find keyed"})


async def contents(scene: Scene) -> list[tuple[str, str | None]]:
    """Of the scene's conversation."""
    detail = await scene.conversations.store.read(OWNER, scene.id)
    return [(message.content, message.error) for message in detail.messages]


async def all_of_owner(conversations: OpenConversations) -> list[tuple[str | None, int]]:
    """Title and number of messages of each conversation, in no order."""
    found = await conversations.store.find(OWNER, ConversationQuery(limit=100))
    return sorted((one.title, one.num_messages) for one in found.data)


async def wrong_conversations(conversations: OpenConversations) -> list[str]:
    """Those whose counts are not those of their messages; on SQLite its own checks as well."""
    database = conversations._database

    async def work(session: AsyncSession) -> list[str]:
        query = WRONG_COUNTS.format(length=NUM_BYTES[database.is_sqlite])
        wrong = list(await session.scalars(text(query)))
        if database.is_sqlite:
            wrong += [one for one in await session.scalars(text("PRAGMA integrity_check")) if one != "ok"]
            wrong += [str(one) for one in await session.execute(text("PRAGMA foreign_key_check"))]
        return wrong

    return await database.read(work, timeout_s=30)
