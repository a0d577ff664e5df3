"""Wire structs of the LLM Serving API: conversations, generation and models below /api/v1."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.compat.picollm import TopPOrOff
from contracts.conversations import ModelName, SystemPrompt, TurnLimit
from contracts.openai.common import ConversationId, MaxTokens, Samples, Temperature, TopK

Text = Annotated[str, Meta(min_length=1)]
"""White space alone is refused as well."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/chat."""

    message: Text
    conversation_id: ConversationId | None = None
    """Left out: a new conversation."""
    model_name: ModelName | None = None
    max_tokens: MaxTokens | None = None
    max_length: MaxTokens | None = None
    """Another name of max_tokens: it counts new tokens."""
    temperature: Temperature | None = None
    top_p: TopPOrOff | None = None
    top_k: TopK | None = None
    stream: bool | None = None
    system_prompt: SystemPrompt | None = None
    """Of a new conversation; of an old one, for this message alone."""


class UsedParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply was generated with; null is the model's own."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of POST /api/v1/chat."""

    response: str
    conversation_id: str
    model_name: str
    generation_time: float
    """Seconds."""
    message_count: int
    """Of the conversation, its system prompt included."""
    parameters: UsedParameters


class NewConversationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/chat/new, which may be absent."""

    system_prompt: SystemPrompt | None = None
    model_name: ModelName | None = None
    max_length: TurnLimit | None = None
    """Most turns of a prompt."""


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    timestamp: str


class ConversationHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with its messages."""

    id: str
    conversation_id: str
    message: str
    title: str
    created_at: str
    updated_at: str
    messages: list[HistoryMessage]
    message_count: dict[str, int]
    """By role."""
    max_length: int


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One declared model."""

    name: str
    display_name: str
    model_id: str
    """Its name on the hub; its own name where it is a directory."""
    supports_chat: bool
    description: str
    memory_requirement: str
    max_length: int | None
    """Null until it was loaded once, where nobody has declared it."""


class ModelOverview(msgspec.Struct, frozen=True, kw_only=True):
    """Every declared model."""

    models: list[ModelSummary]
    chat_models: list[str]
    current_model: str


class SwitchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/chat/switch-model."""

    model_name: Text


class LoadReply(msgspec.Struct, frozen=True, kw_only=True):
    """A model is loaded now."""

    message: str
    model_name: str
    model_id: str
    load_time: float | None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The default model; what only a loaded one knows is empty or null before."""

    model_name: str
    model_type: str
    model_size: str
    device: str
    max_length: int | None
    loaded: bool


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /api/v1/generate."""

    prompt: Text
    max_length: MaxTokens | None = None
    """New tokens."""
    temperature: Temperature | None = None
    top_p: TopPOrOff | None = None
    top_k: TopK | None = None
    num_return_sequences: Samples | None = None
    do_sample: bool | None = None
    """False is greedy."""


class GenerateParameters(UsedParameters, frozen=True, kw_only=True):
    """What texts were generated with."""

    num_return_sequences: int
    do_sample: bool


class GenerateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of POST /api/v1/generate."""

    generated_text: list[str]
    """The prompt is not part of it."""
    prompt: str
    model_name: str
    generation_time: float
    parameters: GenerateParameters


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What GET /api/v1 says."""

    message: str
    version: str
    current_model: str
    chat_models: list[str]
    endpoints: dict[str, dict[str, str]]
    docs: str = "/docs"
    openapi: str = "/openapi.json"
