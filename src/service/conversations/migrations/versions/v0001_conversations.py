"""Conversations, their messages, and the leases of those who write to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "quire_conversation",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("system_prompt", sa.Text()),
        sa.Column("model", sa.String(512)),
        sa.Column("generation", sa.Text()),
        sa.Column("max_turns", sa.Integer(), nullable=False),
        sa.Column("num_turns", sa.Integer(), nullable=False),
        sa.Column("num_messages", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_quire_conversation_owner", "quire_conversation", ["owner", "updated_ms", "id"])
    op.create_table(
        "quire_message",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("conversation_id", sa.String(40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("model", sa.String(512)),
        sa.Column("finish_reason", sa.String(512)),
        sa.Column("error", sa.String(512)),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["quire_conversation.id"],
            name="fk_quire_message_conversation",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("conversation_id", "position", name="uq_quire_message_position"),
    )
    op.create_table(
        "quire_lease",
        sa.Column("conversation_id", sa.String(40), primary_key=True),
        sa.Column("holder", sa.String(40), nullable=False),
        sa.Column("expires_s", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["quire_conversation.id"], name="fk_quire_lease_conversation", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("quire_lease")
    op.drop_table("quire_message")
    op.drop_table("quire_conversation")
