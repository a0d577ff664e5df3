"""The key by which a request that is sent again finds its own turn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing that is there has a key."""
    op.add_column("quire_message", sa.Column("idempotency_key", sa.String(255)))
    op.create_index(
        "uq_quire_message_idempotency", "quire_message", ["conversation_id", "idempotency_key"], unique=True
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("uq_quire_message_idempotency", "quire_message")
    op.drop_column("quire_message", "idempotency_key")
