"""Between rows and the structs of the API, and the ids of new rows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.conversations import Conversation, ConversationDetail, ConversationMessage, GenerationDefaults
from contracts.errors import ConversationNotFound, clip
from service.conversations.tables import ConversationRow, MessageRow

_ID = re.compile(r"conv_[0-9a-f]{32}", re.ASCII)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(GenerationDefaults)


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


def to_detail(row: ConversationRow, messages: Sequence[MessageRow]) -> ConversationDetail:
    """With all its messages."""
    fields = msgspec.structs.asdict(to_conversation(row))
    return ConversationDetail(**fields, messages=[to_message(message) for message in messages])


def to_message(row: MessageRow) -> ConversationMessage:
    """One message."""
    return ConversationMessage(
        id=row.id,
        role=cast("Any", row.role),
        content=row.content,
        created_at=row.created_ms // 1000,
        model=row.model,
        finish_reason=row.finish_reason,
        error=row.error,
    )
