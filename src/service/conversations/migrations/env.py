"""What Alembic runs to migrate: on the connection and in the transaction that `service.conversations.schema` holds."""

from __future__ import annotations

from alembic import context

from service.conversations.tables import VERSION_TABLE, ConversationRow

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=ConversationRow.metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
