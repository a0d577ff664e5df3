"""The two kinds of sample: a conversation in turns, and a plain document."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]

HELD_OUT_BUCKETS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns in order; `slot_key` names the filled slots, where a theme has a closed set of them."""

    turns: tuple[Turn, ...]
    slot_key: str = ""

    @property
    def key(self) -> str:
        return self.slot_key or "\n".join(turn.content for turn in self.turns)

    def with_system(self, prompt: str) -> "Conversation":
        """The same conversation under a system message."""
        return Conversation(turns=(Turn(role="system", content=prompt), *self.turns), slot_key=self.slot_key)

    def followed_by(self, other: "Conversation") -> "Conversation":
        """Both conversations as one; held out when the whole text is."""
        return Conversation(turns=self.turns + other.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain text without chat markup, for the completions endpoint."""

    text: str

    @property
    def key(self) -> str:
        return self.text


Sample = Conversation | Document


def chat(messages: Sequence[str], slot_key: str = "") -> Conversation:
    """A conversation of alternating user and assistant messages, the user first."""
    roles: tuple[Role, Role] = ("user", "assistant")
    turns = tuple(Turn(role=roles[i % 2], content=text) for i, text in enumerate(messages))
    return Conversation(turns=turns, slot_key=slot_key)


def is_held_out(sample: Sample) -> bool:
    """Whether the sample's slot combination belongs to the held-out set, never trained on."""
    return zlib.crc32(sample.key.lower().encode()) % HELD_OUT_BUCKETS == 0
