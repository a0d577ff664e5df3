"""What a turn is made of, between the store, the prompt and the reply. Knows no database and no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import msgspec

from contracts.conversations import Conversation

KEY_NAME: Final = "idempotency-key"
"""What requests and errors call the key by which a message that is sent again is known."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to write to which conversation."""

    owner: str
    conversation_id: str
    holder: str
    """The process."""


class TurnMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as a prompt wants it."""

    turn: int = 0
    role: str
    content: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What answered, and how it ended."""

    content: str
    model: str
    finish_reason: str


class KeptReply(Reply, frozen=True, kw_only=True):
    """A reply that is in the database."""

    id: str
    created_s: int


class KeyedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The turn of an idempotency key."""

    posted: list[TurnMessage]
    reply: KeptReply | None
    """None where there is none yet."""
    is_last: bool

    def is_same(self, posted: Sequence[TurnMessage]) -> bool:
        """Whether the key stands for these messages."""
        return [(one.role, one.content) for one in self.posted] == [(one.role, one.content) for one in posted]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as its next turn finds it."""

    conversation: Conversation
    num_turns: int
    messages: list[TurnMessage]
    """Oldest first, without those that no prompt holds any more."""

    @property
    def num_bytes(self) -> int:
        """Of the text, nearly: what templating it costs."""
        return sum(len(message.content) for message in self.messages)

    def answered_turns(self, first_turn: int) -> list[list[TurnMessage]]:
        """The turns from `first_turn` on that have a reply.

        A message that was never answered stays stored and is left out of prompts: most templates want the roles to
        alternate, and its sender was told that it failed.
        """
        kept = (message for message in self.messages if message.turn >= first_turn)
        turns = [list(group) for _, group in groupby(kept, key=lambda message: message.turn)]
        return [turn for turn in turns if turn[-1].role == "assistant"]

    def retried_turn(self, posted: Sequence[TurnMessage]) -> int | None:
        """The last turn, where it has no reply and holds exactly what is posted now: then this is another attempt.

        So a client that sends a message again, because the engine failed, the server was killed or the connection
        broke before any text came, leaves it in the conversation once.
        """
        last = [message for message in self.messages if message.turn == self.num_turns]
        is_same = [(one.role, one.content) for one in last] == [(one.role, one.content) for one in posted]
        return self.num_turns if last and is_same else None
