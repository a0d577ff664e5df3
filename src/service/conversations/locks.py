"""One turn at a time in each conversation: a queue within the process, a lease in the database between processes.

Within a process posts are served in the order of their coming; between processes whoever asks first when the lease is
free. A lease is renewed while its turn lasts, and ends by itself soon after its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Final

import structlog

from contracts.errors import ConversationBusy, ConversationsUnavailable
from service.conversations.turn_store import BUSY_RETRY_AFTER_S, LEASE_S, TurnStore
from service.conversations.turn_types import Claim, History

MAX_WAIT_S: Final = 30.0
"""Until a post that waits for another one is refused."""
RENEW_S: Final = LEASE_S / 3
FIRST_POLL_S: Final = 0.05
MAX_POLL_S: Final = 0.5

_Key = tuple[str, str]
_log = structlog.get_logger("service.conversations")


class TurnLocks:
    """Owner of what this process holds. `acquire`, then `release` once; the lease itself ends with the last write."""

    def __init__(self, turns: TurnStore, *, max_wait_s: float = MAX_WAIT_S, renew_s: float = RENEW_S) -> None:
        self._turns = turns
        self._max_wait_s = max_wait_s
        self._renew_s = renew_s
        self._holder = secrets.token_hex(8)
        self._locks: dict[_Key, asyncio.Lock] = {}
        self._num_users: dict[_Key, int] = {}
        self._held: dict[_Key, Claim] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self, owner: str, conversation_id: str) -> tuple[Claim, History]:
        """Wait for the conversation; raises ConversationNotFound, or ConversationBusy after `max_wait_s`."""
        claim = Claim(owner=owner, conversation_id=conversation_id, holder=self._holder)
        key = (owner, conversation_id)
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._num_users[key] = self._num_users.get(key, 0) + 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await lock.acquire()
                try:
                    history = await self._take(claim)
                except BaseException:
                    lock.release()
                    raise
        except TimeoutError:
            self._leave(key)
            raise ConversationBusy(
                f"Another request writes to this conversation and did not end within {self._max_wait_s:g} s. Try "
                "again soon.",
                param="conversation",
                retry_after_s=BUSY_RETRY_AFTER_S,
            ) from None
        except BaseException:
            self._leave(key)
            raise
        self._held[key] = claim
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return claim, history

    def release(self, claim: Claim) -> None:
        """Let the next one in."""
        key = (claim.owner, claim.conversation_id)
        del self._held[key]
        self._locks[key].release()
        self._leave(key)

    async def close(self) -> None:
        """Stop renewing."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _leave(self, key: _Key) -> None:
        self._num_users[key] -= 1
        if self._num_users[key] == 0:
            del self._num_users[key], self._locks[key]

    async def _take(self, claim: Claim) -> History:
        poll_s = FIRST_POLL_S
        while (history := await self._turns.take(claim)) is None:
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, MAX_POLL_S)
        return history

    async def _renew(self) -> None:
        """As long as anything is held; what cannot be renewed is found out by the write that ends its turn."""
        while self._held:
            await asyncio.sleep(self._renew_s)
            held = [claim.conversation_id for claim in self._held.values()]
            with contextlib.suppress(ConversationsUnavailable):
                await self._turns.renew(self._holder, held)
