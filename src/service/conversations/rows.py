"""Between rows and the structs of the API, and the ids of new rows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import Conversation, ConversationDetail, ConversationMessage, GenerationDefaults
from contracts.errors import ConversationNotFound, clip
from service.conversations.tables import ConversationRow, MessageRow

_ID = re.compile(r"conv_[0-9a-f]{32}", re.ASCII)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(GenerationDefaults)

ROWS_AT_A_TIME: Final = 512
WITHOUT_OBJECTS: Final = {"synchronize_session": False}
"""Of statements that change many rows: else every one of them is read, for objects that nobody holds."""
RowT = TypeVar("RowT", bound=tuple[Any, ...])
MessageTuple = Row[tuple[str, str, str, int, str | None, str | None, str | None]]
MESSAGE_COLUMNS = (
    MessageRow.id,
    MessageRow.role,
    MessageRow.content,
    MessageRow.created_ms,
    MessageRow.model,
    MessageRow.finish_reason,
    MessageRow.error,
)
"""What of a message is read to be shown; as objects of the ORM thousands would hold the event loop up."""


def new_id(prefix: str) -> str:
    """128 random bits: an id that nobody guesses."""
    return f"{prefix}{secrets.token_hex(16)}"


def encode_defaults(defaults: GenerationDefaults | None) -> str | None:
    """As the table keeps them; none at all are null."""
    return None if defaults is None or defaults == GenerationDefaults() else _ENCODER.encode(defaults).decode()


def decode_defaults(text: str | None) -> GenerationDefaults | None:
    """What `encode_defaults` made."""
    return None if text is None else _DECODER.decode(text)


async def find_row(
    session: AsyncSession, owner: str, conversation_id: str, *, is_locked: bool = False
) -> ConversationRow:
    """The conversation, where it is the owner's; raises ConversationNotFound, whoever else may have one of that id.

    `is_locked` keeps other transactions from it until this one ends; in SQLite every writer is alone anyway.
    """
    if not _ID.fullmatch(conversation_id):  # which PostgreSQL might not even take as text
        raise not_found(conversation_id)
    query = select(ConversationRow).where(ConversationRow.id == conversation_id, ConversationRow.owner == owner)
    row = await session.scalar(query.with_for_update() if is_locked else query)
    if row is None:
        raise not_found(conversation_id)
    return row


def messages_of(owner: str, conversation_id: str) -> ColumnElement[bool]:
    """Which messages are the conversation's, and none where it is not the owner's."""
    found = select(ConversationRow.id).where(ConversationRow.id == conversation_id, ConversationRow.owner == owner)
    return MessageRow.conversation_id == found.scalar_subquery()


async def all_rows(session: AsyncSession, query: Select[RowT]) -> list[Row[RowT]]:
    """What may be thousands, taken some at a time, so that the event loop comes round between them."""
    result = await session.stream(query.execution_options(yield_per=ROWS_AT_A_TIME))
    return [row async for rows in result.partitions() for row in rows]


def not_found(conversation_id: str) -> ConversationNotFound:
    """The same words for an id that is unknown and for another key's."""
    return ConversationNotFound(
        f"There is no conversation '{clip(conversation_id, 64)}'; GET /v1/conversations lists yours.",
        param="conversation",
    )


def to_conversation(row: ConversationRow) -> Conversation:
    """Without its messages."""
    return Conversation(
        id=row.id,
        title=row.title,
        created_at=row.created_ms // 1000,
        updated_at=row.updated_ms // 1000,
        model=row.model,
        system_prompt=row.system_prompt,
        max_turns=row.max_turns,
        generation=decode_defaults(row.generation),
        num_messages=row.num_messages,
    )


def to_detail(row: ConversationRow, messages: Sequence[MessageTuple]) -> ConversationDetail:
    """With all its messages, of which there may be thousands: to be called in a thread."""
    fields = msgspec.structs.asdict(to_conversation(row))
    return ConversationDetail(**fields, messages=[_to_message(*message) for message in messages])


def _to_message(
    message_id: str,
    role: str,
    content: str,
    created_ms: int,
    model: str | None,
    finish_reason: str | None,
    error: str | None,
) -> ConversationMessage:
    return ConversationMessage(
        id=message_id,
        role=cast("Any", role),
        content=content,
        created_at=created_ms // 1000,
        model=model,
        finish_reason=finish_reason,
        error=error,
    )
