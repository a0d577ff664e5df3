"""One request's turn in a conversation: taken, posted, answered or not, and given back on every path.

Knows no HTTP and no engine; `routes.conversation_chat` feeds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from contracts.errors import ConversationsUnavailable, InvalidValue, QuireError
from service.conversations.access import Conversations, OpenConversations
from service.conversations.turn_types import KEY_NAME, Claim, History, KeptReply, Reply, TurnMessage

CANCELLED: Final = "cancelled"
"""Finish reason of a reply whose client left, and the mark of a message whose client left before any text."""
INTERNAL: Final = "internal_error"
_log = structlog.get_logger("service.conversations")


class Turn:
    """Owner: one request. Life cycle: `take`, `post`, then `add` and `finish` or `fail`, and `close` on every path.

    The user's message is kept before the engine is asked, the reply before the caller is told of its end. A streamed
    reply whose client leaves is kept as far as it came; of one that fails, or that nobody has seen a word of, only
    the message stays, with a mark, and posting it again takes it up.
    """

    def __init__(self, conversations: Conversations, owner: str, conversation_id: str, *, is_stream: bool) -> None:
        self._conversations = conversations
        self._owner = owner
        self._conversation_id = conversation_id
        self._is_stream = is_stream
        self._open: OpenConversations | None = None
        self._claim: Claim | None = None
        self._turn: int | None = None
        self._model = ""
        self._texts: list[str] = []
        self._finish_reason: str | None = None
        self._error: str | None = None
        self._is_finished = False

    async def take(self) -> History:
        """Wait until no other request writes to the conversation; raises the errors of `locks` and of `access`."""
        self._open = await self._conversations.open()
        self._claim, history = await self._open.locks.acquire(self._owner, self._conversation_id)
        return history

    async def recall(self, posted: Sequence[TurnMessage], key: str) -> KeptReply | History | None:
        """What the request that had this idempotency key before was answered, where that was kept whole.

        Else the message is to be answered anew: None, or the history where it has changed, because a reply that broke
        off when its client left makes room for a whole one. Raises InvalidValue where the key is another message's.
        """
        opened, claim = self._taken()
        found = await opened.turns.find_keyed(claim, key)
        if found is None:
            return None
        if not found.is_same(posted):
            raise InvalidValue(
                f"The header {KEY_NAME} is that of another message in this conversation. Give each its own.",
                param=KEY_NAME,
            )
        if found.reply is None or (found.reply.finish_reason == CANCELLED and not found.is_last):
            return None
        if found.reply.finish_reason != CANCELLED:
            return found.reply
        await opened.turns.cut(claim, found.reply.id)
        return await opened.turns.take(claim)

    async def post(
        self, messages: Sequence[TurnMessage], retried_turn: int | None, model: str, key: str | None = None
    ) -> None:
        """Keep what is new, under the request's idempotency key; `model` is who will answer."""
        opened, claim = self._taken()
        self._turn = await opened.turns.post(claim, messages, retried_turn, key)
        self._model = model

    def add(self, text: str, finish_reason: str | None) -> None:
        """The reply goes on, or ends."""
        self._texts.append(text)
        self._finish_reason = finish_reason or self._finish_reason

    def fail(self, error: Exception) -> None:
        """There will be no reply; the first cause counts."""
        code = error.code if isinstance(error, QuireError) else INTERNAL
        self._error = self._error or code or INTERNAL

    async def finish(self) -> None:
        """Keep the whole reply; raises ConversationsUnavailable, ConversationNotFound or ConversationBusy."""
        try:
            await self._keep(self._finish_reason or CANCELLED)
        except QuireError as error:
            self.fail(error)
            raise

    async def close(self) -> None:
        """Keep or mark what `finish` has not, and let the next one in; may be called whatever has happened.

        Goes on by itself where the caller is cancelled.
        """
        if self._claim is not None:
            await asyncio.shield(asyncio.create_task(self._close()))

    async def _close(self) -> None:
        opened, claim = self._taken()
        try:
            if self._is_finished:
                return
            if self._turn is None:
                await opened.turns.release(claim)
            elif self._error is None and self._is_stream and "".join(self._texts):
                await self._keep(CANCELLED)
            else:
                await opened.turns.mark(claim, self._turn, self._error or CANCELLED)
        except ConversationsUnavailable:
            _log.warning("turn_not_closed", conversation=self._conversation_id)
        except QuireError as error:  # deleted meanwhile, or taken over
            _log.info("turn_dropped", conversation=self._conversation_id, code=error.code)
        finally:
            opened.locks.release(claim)
            self._claim = None

    async def _keep(self, finish_reason: str) -> None:
        opened, claim = self._taken()
        # A model may say NUL, which PostgreSQL cannot keep.
        content = "".join(self._texts).replace("\0", "\N{REPLACEMENT CHARACTER}")
        reply = Reply(content=content, model=self._model, finish_reason=finish_reason)
        await opened.turns.finish(claim, self._turn or 0, reply)
        self._is_finished = True

    def _taken(self) -> tuple[OpenConversations, Claim]:
        if self._open is None or self._claim is None:
            raise RuntimeError("a turn was used before it was taken, or after it was closed")
        return self._open, self._claim
