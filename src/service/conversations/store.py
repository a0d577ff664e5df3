"""Conversations as things to make, list, search, read, rename and delete; each call is one transaction.

Everything is the owner's: another's conversation is not found, whoever asks. Knows no HTTP and no turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET
from sqlalchemy import ColumnElement, and_, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import (
    DEFAULT_MAX_TURNS,
    ChangeConversation,
    Conversation,
    ConversationDetail,
    ConversationList,
    CreateConversation,
)
from contracts.errors import ConversationNotFound, InvalidValue
from service.clocks import unix_ms
from service.conversations.database import Database
from service.conversations.exchange import ImportedConversation, ImportedMessage
from service.conversations.rows import (
    MESSAGE_COLUMNS,
    WITHOUT_OBJECTS,
    all_rows,
    encode_defaults,
    find_row,
    messages_of,
    new_id,
    not_found,
    to_conversation,
    to_detail,
)
from service.conversations.tables import ConversationRow, MessageRow

LONG_TIMEOUT_S: Final = 10.0
"""Searching reads all that an owner has said, and an import writes thousands of messages."""
MESSAGES_PER_INSERT: Final = 128
"""Of a long import: about two milliseconds of the event loop."""


class ConversationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the list."""

    limit: int = 20
    after: str | None = None
    """Id of the last conversation of the page before."""
    text: str | None = None
    """What title or a message must hold, whatever the case of letters; no character of it is a wildcard."""


class ConversationStore:
    """Owner: `access.Conversations`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, owner: str, wanted: CreateConversation) -> Conversation:
        """A new conversation without messages."""
        now_ms = unix_ms()
        row = ConversationRow(
            id=new_id("conv_"),
            owner=owner,
            title=wanted.title,
            system_prompt=wanted.system_prompt,
            model=wanted.model,
            generation=encode_defaults(wanted.generation),
            max_turns=wanted.max_turns or DEFAULT_MAX_TURNS,
            num_turns=0,
            num_messages=0,
            num_bytes=0,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        return await self._add(row, [])

    async def restore(self, owner: str, imported: ImportedConversation) -> Conversation:
        """A new conversation with what a file holds."""
        messages = imported.messages
        row = ConversationRow(
            id=new_id("conv_"),
            owner=owner,
            title=imported.title,
            system_prompt=imported.system_prompt,
            model=imported.model,
            generation=encode_defaults(imported.generation),
            max_turns=imported.max_turns,
            num_turns=messages[-1].turn if messages else 0,
            num_messages=len(messages),
            num_bytes=sum(len(message.content.encode()) for message in messages),
            created_ms=imported.created_ms,
            updated_ms=imported.updated_ms,
        )
        return await self._add(row, messages)

    async def find(self, owner: str, query: ConversationQuery) -> ConversationList:
        """One page, the conversation changed last first; raises InvalidValue where `after` is not found."""

        async def work(session: AsyncSession) -> list[ConversationRow]:
            wanted = select(ConversationRow).where(ConversationRow.owner == owner)
            if query.text is not None:
                wanted = wanted.where(_holds(query.text, is_sqlite=self._database.is_sqlite))
            if query.after is not None:
                wanted = wanted.where(await _stands_after(session, owner, query.after))
            wanted = wanted.order_by(ConversationRow.updated_ms.desc(), ConversationRow.id.desc())
            return list(await session.scalars(wanted.limit(query.limit + 1)))

        rows = await self._database.read(work, timeout_s=LONG_TIMEOUT_S)
        found = [to_conversation(row) for row in rows[: query.limit]]
        return ConversationList(
            data=found,
            has_more=len(rows) > query.limit,
            first_id=found[0].id if found else None,
            last_id=found[-1].id if found else None,
        )

    async def read(self, owner: str, conversation_id: str) -> ConversationDetail:
        """All of it; raises ConversationNotFound."""

        async def work(session: AsyncSession) -> ConversationDetail:
            row = await find_row(session, owner, conversation_id)
            of_it = messages_of(owner, conversation_id)
            messages = await all_rows(session, select(*MESSAGE_COLUMNS).where(of_it).order_by(MessageRow.position))
            return await asyncio.to_thread(to_detail, row, messages)

        return await self._database.read(work)

    async def change(self, owner: str, conversation_id: str, changes: ChangeConversation) -> Conversation:
        """Write what is given; raises ConversationNotFound."""

        async def work(session: AsyncSession) -> Conversation:
            row = await find_row(session, owner, conversation_id, is_locked=True)
            if changes.title is not UNSET:
                row.title = changes.title
            if changes.system_prompt is not UNSET:
                row.system_prompt = changes.system_prompt
            if changes.model is not UNSET:
                row.model = changes.model
            if changes.max_turns is not UNSET:
                row.max_turns = changes.max_turns or DEFAULT_MAX_TURNS
            if changes.generation is not UNSET:
                row.generation = encode_defaults(changes.generation)
            row.updated_ms = unix_ms()
            return to_conversation(row)

        return await self._database.write(work, erases=True)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Remove it with its messages; a reply that is under way then finds nowhere to go."""

        async def work(session: AsyncSession) -> None:
            await find_row(session, owner, conversation_id, is_locked=True)
            of_owner = (ConversationRow.id == conversation_id) & (ConversationRow.owner == owner)
            await session.execute(delete(ConversationRow).where(of_owner), execution_options=WITHOUT_OBJECTS)

        await self._database.write(work, erases=True)

    async def _add(self, row: ConversationRow, messages: Sequence[ImportedMessage]) -> Conversation:
        async def work(session: AsyncSession) -> Conversation:
            session.add(row)
            await session.flush()
            for begin in range(0, len(messages), MESSAGES_PER_INSERT):
                some = messages[begin : begin + MESSAGES_PER_INSERT]
                await session.execute(insert(MessageRow), _message_values(row.id, begin + 1, some))
            return to_conversation(row)

        return await self._database.write(work, timeout_s=LONG_TIMEOUT_S)


def _message_values(
    conversation_id: str, first_position: int, messages: Sequence[ImportedMessage]
) -> list[dict[str, Any]]:
    return [
        {"id": new_id("msg_"), "conversation_id": conversation_id, "position": position}
        | msgspec.structs.asdict(message)
        for position, message in enumerate(messages, start=first_position)
    ]


def _holds(text: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """The text in the title or in a message, whatever the case of its letters.

    SQLite's LIKE sees to that for ASCII; `lower`, which is Python there, is called for other texts only.
    """
    title, content = ConversationRow.title, MessageRow.content
    is_simple = is_sqlite and text.isascii()
    in_content = content.contains(text, autoescape=True) if is_simple else content.icontains(text, autoescape=True)
    in_title = title.contains(text, autoescape=True) if is_simple else title.icontains(text, autoescape=True)
    in_messages = select(MessageRow.id).where(MessageRow.conversation_id == ConversationRow.id, in_content)
    return or_(in_title, in_messages.exists())


async def _stands_after(session: AsyncSession, owner: str, conversation_id: str) -> ColumnElement[bool]:
    try:
        last = await find_row(session, owner, conversation_id)
    except ConversationNotFound as error:
        raise InvalidValue(not_found(conversation_id).message, param="after") from error
    return or_(
        ConversationRow.updated_ms < last.updated_ms,
        and_(ConversationRow.updated_ms == last.updated_ms, ConversationRow.id < last.id),
    )
