"""The tables of the conversations; the migrations make them, and a test holds the two against each other."""

from __future__ import annotations

from typing import Final

from advanced_alchemy.base import DefaultBase
from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

REVISION: Final = "0002"
"""Of the newest migration."""
VERSION_TABLE: Final = "quire_schema_version"

ID_LEN = 40
LABEL_LEN = 512
KEY_LEN = 255


class ConversationRow(DefaultBase):
    """One conversation. The counts are written together with the messages that they count."""

    __tablename__ = "quire_conversation"
    __table_args__ = (Index("ix_quire_conversation_owner", "owner", "updated_ms", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LEN), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    """Label of the API key; empty where the server has no keys."""
    # To the ORM a row is its id with its owner, so that whatever it writes names both.
    __mapper_args__ = {"primary_key": [id, owner]}  # noqa: A003, RUF012 (as SQLAlchemy wants it)
    title: Mapped[str | None] = mapped_column(Text)
    system_prompt: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(LABEL_LEN))
    generation: Mapped[str | None] = mapped_column(Text)
    """GenerationDefaults as JSON."""
    max_turns: Mapped[int] = mapped_column(Integer)
    num_turns: Mapped[int] = mapped_column(Integer)
    num_messages: Mapped[int] = mapped_column(Integer)
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of all messages as UTF-8."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    updated_ms: Mapped[int] = mapped_column(BigInteger)


class MessageRow(DefaultBase):
    """One message. A turn is what one request posted, ending with the user's message, and then the reply to it."""

    __tablename__ = "quire_message"
    __table_args__ = (
        UniqueConstraint("conversation_id", "position", name="uq_quire_message_position"),
        Index("uq_quire_message_idempotency", "conversation_id", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(ID_LEN), primary_key=True)
    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("quire_conversation.id", name="fk_quire_message_conversation", ondelete="CASCADE")
    )
    position: Mapped[int] = mapped_column(Integer)
    """1, 2, 3, ..."""
    turn: Mapped[int] = mapped_column(Integer)
    """1, 2, 3, ...; a turn without a reply has no assistant's message at its end."""
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(LABEL_LEN))
    finish_reason: Mapped[str | None] = mapped_column(String(LABEL_LEN))
    error: Mapped[str | None] = mapped_column(String(LABEL_LEN))
    idempotency_key: Mapped[str | None] = mapped_column(String(KEY_LEN))
    """Of the request that posted the turn, at the turn's last message of the user."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class LeaseRow(DefaultBase):
    """Which process writes to a conversation now; it renews the lease while it does."""

    __tablename__ = "quire_lease"

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("quire_conversation.id", name="fk_quire_lease_conversation", ondelete="CASCADE"), primary_key=True
    )
    holder: Mapped[str] = mapped_column(String(ID_LEN))
    expires_s: Mapped[float] = mapped_column(Float(53))
    """Unix time by the database's clock, the one that all holders share."""
