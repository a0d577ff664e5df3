"""Wire structs of picoLLM and of the course server beside it: streams with `token`, a one-shot /chat, model facts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from contracts.openai.chat import MAX_MESSAGES, ChatCompletionChunk, ChatCompletionRequest, Message
from contracts.openai.common import MaxTokens, Temperature, TopK

TopPOrOff = Annotated[float, Meta(ge=0, le=1)]
"""0 means off, as 1 does."""


class StreamedChatRequest(ChatCompletionRequest, frozen=True, kw_only=True):
    """The body of POST /chat/completions: OpenAI's, streamed unless `stream` is false."""

    top_p: TopPOrOff | None = None
    max_new_tokens: MaxTokens | None = None


class TokenChunk(ChatCompletionChunk, frozen=True, kw_only=True):
    """One event: OpenAI's chunk, and what older clients read."""

    token: str | UnsetType = UNSET
    """The new text of choice 0."""
    delta: str | UnsetType = UNSET
    """The same for clients of the course server."""
    gpu: int | UnsetType = UNSET
    done: bool | UnsetType = UNSET
    """True in the last event before [DONE]."""


class ShortChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /chat."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_new_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    stream: bool | None = None
    """Only false: /chat/completions streams."""


class ShortChatUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the reply counts."""

    prompt_messages: int


class ShortChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of POST /chat."""

    reply: str
    usage: ShortChatUsage


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the default model is."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    history: list[dict[str, Any]] = []
    """Of its training, which nobody here knows."""


class CheckpointItem(msgspec.Struct, frozen=True, kw_only=True):
    """One declared model."""

    name: str
    state: str
    is_default: bool


class CheckpointList(msgspec.Struct, frozen=True, kw_only=True):
    """Every declared model."""

    items: list[CheckpointItem]


ModelSource = Literal["base", "sft"]
