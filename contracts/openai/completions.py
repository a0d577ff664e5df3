"""Wire structs of POST /v1/completions, in OpenAI's names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from contracts.openai.common import (
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

MAX_PROMPTS = 64

# msgspec allows one array type in a union: `translate` checks that a list is of one kind (and MAX_PROMPTS long).
Prompt = str | list[str | int | list[int]]


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/completions; every optional field may also be null."""

    prompt: Prompt
    model: str | None = None
    best_of: Samples | None = None
    echo: bool | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_tokens: MaxTokens | None = None
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
    metadata: Metadata | None = None

    # Refused by name whenever given.
    suffix: Any = None
    prompt_logprobs: Any = None

    # Quire's own, with the names other servers use.
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: MinTokens | None = None
    ignore_eos: bool | None = None
    stop_token_ids: StopTokenIds | None = None
    priority: Priority | None = None
    preset: PresetName | None = None


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Parallel lists, one entry per generated token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One continuation; in a stream `text` is the new piece and finish_reason stays null until the last."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The one-shot reply, and each event of a stream (where `usage` is absent unless asked for)."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    """Quire's own, in the last event of a stream alone: the id of the request's trace, which `quire why` takes too."""
