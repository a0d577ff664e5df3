"""Conversations that outlive requests: kept in a database, trimmed to the model's window, written by one at a time.

SQLAlchemy is imported by `tables`, `schema`, `database`, `store` and `turn_store` only, and those by `access` when the
first request wants a conversation: neither the start nor a request without one pays for them.
"""

import sys

if sys.modules.get("advanced_alchemy", sys) is None:  # `service` says why
    del sys.modules["advanced_alchemy"]
