"""Wire structs of POST /v1/chat/completions, in OpenAI's names.

Fields under "refused" are decoded so that `service.refusals` can refuse them by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from contracts.openai.common import (
    ConversationId,
    Label,
    LogitBias,
    MaxTokens,
    Metadata,
    MinP,
    MinTokens,
    Penalty,
    Priority,
    RepetitionPenalty,
    Samples,
    Seed,
    StopStrings,
    StopTokenIds,
    StreamOptions,
    Temperature,
    TopK,
    TopP,
    Usage,
)
from contracts.presets import PresetName

MAX_MESSAGES = 2048

TopLogprobs = Annotated[int, Meta(ge=0, le=20)]


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a message; only `type: text` is served, the others are refused by name."""

    type: str
    text: str | None = None
    prompt_cache_breakpoint: Any = None

    # What parts of other types carry; refused in a text part.
    image_url: Any = None
    video_url: Any = None
    audio_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None


Content = str | list[ContentPart]


class SystemMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="system"):
    """Instructions to the model."""

    content: Content
    name: str | None = None


class DeveloperMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="developer"):
    """OpenAI's newer name for a system message; treated as one."""

    content: Content
    name: str | None = None


class UserMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="user"):
    """What the user said."""

    content: Content
    name: str | None = None


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """What the model answered earlier."""

    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    reasoning_content: str | None = None


class ToolMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="tool"):
    """The result of a tool call; refused until tools are served."""

    content: Content
    tool_call_id: str | None = None


class FunctionMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="function"):
    """The older form of a tool message; refused."""

    content: Content | None = None
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class ChatCompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions; every optional field may also be null."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n: Samples | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: StopStrings | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None

    # Labels: checked, never used for generation and never logged.
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    metadata: Metadata | None = None

    # Honoured for the one value that Quire implements, else refused by name.
    response_format: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prompt_cache_retention: str | None = None

    # Refused by name whenever given.
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    prediction: Any = None
    web_search_options: Any = None
    moderation: Any = None
    prompt_cache_options: Any = None

    # Quire's own, with the names other servers use.
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: MinTokens | None = None
    ignore_eos: bool | None = None
    stop_token_ids: StopTokenIds | None = None
    priority: Priority | None = None
    preset: PresetName | None = None
    conversation: ConversationId | None = None
    """Goes on with a kept conversation: `messages` are what is new in it."""


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One of the most probable tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen token at a position, with the alternatives asked for."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Log probabilities of one choice."""

    content: list[ContentLogprob]
    refusal: None = None


class ResponseMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of n answers."""

    index: int
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The one-shot reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str | None


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds: the role once, then pieces of content."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice in a chunk."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream; `usage` is absent unless the stream was asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | None
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    """Quire's own, in the last event alone: the id of the request's trace, which `quire why` takes too."""
