"""The history of the tables, for Alembic: `env` runs what `versions` holds."""
