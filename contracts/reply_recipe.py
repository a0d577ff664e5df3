"""What any worker needs to make the same events of a request's tokens as the worker that took it. Never prompt text."""

from __future__ import annotations

import enum

import msgspec


class ReplyKind(enum.Enum):
    """Whose JSON the events carry."""

    CHAT = "chat"
    COMPLETION = "completion"


class ReplyRecipe(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Kept by the engine, as bytes, as long as the record of the request."""

    kind: ReplyKind
    response_id: str
    created: int
    model: str
    system_fingerprint: str
    num_prompts: int
    """Of the HTTP request. With several, the order of their events is nowhere kept: they cannot be followed."""
    num_prompt_tokens: int
    stop_strings: tuple[str, ...] = ()
    continues_prompt: bool = False
    wants_logprobs: bool = False
    has_usage: bool = False
    """The stream ends with an event of usage."""
    has_echo: bool = False
    """The reply begins with the prompt, which is not kept: it cannot be followed."""
