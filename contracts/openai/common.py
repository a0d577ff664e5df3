"""Wire pieces shared by chat and text completions: usage, stream options, errors."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_N = 8
MAX_STOP_STRINGS = 4
MAX_STOP_LEN = 256
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIAS = 1024
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Samples = Annotated[int, Meta(ge=1, le=MAX_N)]
MaxTokens = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
TopK = Annotated[int, Meta(ge=-1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
MinTokens = Annotated[int, Meta(ge=0)]
TokenId = Annotated[int, Meta(ge=0)]
Priority = Annotated[int, Meta(ge=-100, le=100)]
Label = Annotated[str, Meta(max_length=512)]
ConversationId = Annotated[str, Meta(min_length=1, max_length=64)]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LEN)]
StopStrings = StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)]
StopTokenIds = Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)]
LogitBias = Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=MAX_LOGIT_BIAS)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream carries beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PromptTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Where the prompt's KV came from."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one request, all samples together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's error: all four keys are always present."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every reply that is not a success, and of an error inside a stream."""

    error: ErrorObject
    detail: str
    """The message again, where clients of older services look for it."""
    status_code: int
    """The status of the reply; inside a stream, what it would have been."""
