"""The one way to the conversations: opened by the first request that wants them, so that nobody else pays for them."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING

import structlog

from contracts.errors import ConversationsOff, ConversationsUnavailable
from contracts.settings import ServerSettings
from service.conversations.location import Location, find_location
from service.conversations.turn_types import Claim
from service.event_loop import without_garbage_collection

if TYPE_CHECKING:  # these import SQLAlchemy
    from service.conversations.database import Database
    from service.conversations.locks import TurnLocks
    from service.conversations.store import ConversationStore
    from service.conversations.turn_store import TurnStore

_log = structlog.get_logger("service.conversations")
_MODULES = ("store", "turn_store", "locks", "database")


class OpenConversations:
    """Everything behind one database, for one process."""

    def __init__(self, database: Database, store: ConversationStore, turns: TurnStore, locks: TurnLocks) -> None:
        self._database = database
        self.store = store
        self.turns = turns
        self.locks = locks

    async def give_back(self, claim: Claim) -> None:
        """End a claim that has nothing more to write; where the database is gone the lease ends by itself."""
        try:
            await self.turns.release(claim)
        except ConversationsUnavailable:
            _log.warning("lease_not_given_back", conversation=claim.conversation_id)
        finally:
            self.locks.release(claim)

    async def close(self) -> None:
        """No transaction may begin any more."""
        await self.locks.close()
        await self._database.close()


class Conversations:
    """Owner: the application. Life cycle: `open` as often as wanted, `close` once at the end."""

    def __init__(self, location: Location | None) -> None:
        self._location = location
        self._lock = asyncio.Lock()
        self._opened: OpenConversations | None = None

    @classmethod
    def of(cls, settings: ServerSettings) -> Conversations:
        """As the settings say; raises SettingsError."""
        return cls(find_location(settings))

    async def open(self) -> OpenConversations:
        """What to work with; raises ConversationsOff. The database itself is opened by its first transaction."""
        location = self._location
        if location is None:
            raise ConversationsOff(
                "This server keeps no conversations (--conversations-db none). Send the whole conversation in "
                "'messages' with each request.",
                param="conversation",
            )
        async with self._lock:
            if self._opened is None:
                # Half a second of imports.
                await asyncio.to_thread(_import_modules)
                self._opened = _assemble(location)
            return self._opened

    async def close(self) -> None:
        """Give back what was opened."""
        if self._opened is not None:
            await self._opened.close()


def _import_modules() -> None:
    """A hundred thousand objects: where each full collection visits them, it stops the event loop for 0.1 s more."""
    names = [f"service.conversations.{name}" for name in _MODULES]
    if all(name in sys.modules for name in names):
        return
    with without_garbage_collection():
        for name in names:
            importlib.import_module(name)


def _assemble(location: Location) -> OpenConversations:
    from service.conversations.database import Database
    from service.conversations.locks import TurnLocks
    from service.conversations.store import ConversationStore
    from service.conversations.turn_store import TurnStore

    database = Database(location)
    turns = TurnStore(database)
    return OpenConversations(database, ConversationStore(database), turns, TurnLocks(turns))
