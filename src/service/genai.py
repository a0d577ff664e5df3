"""Names of the GenAI semantic conventions that our spans carry.

Kept here because all of them are still under development upstream, and the Python package marks its own as deprecated.
"""

from __future__ import annotations

from typing import Final

PROVIDER: Final = "quire"

OPERATIONS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/chat/completions": "chat",
    "/chat": "chat",
    "/completions": "text_completion",
    "/completion": "text_completion",
    "/api/v1/chat": "chat",
    "/api/v1/chat/stream/{client_id}": "chat",
    "/api/v1/chat/submit": "chat",
    "/api/v1/generate": "text_completion",
}
"""Path of a route that generates, to what the conventions call it."""

OPERATION_OF_ID: Final = {"chatcmpl-": "chat", "cmpl-": "text_completion"}
"""Beginning of a reply's id, to the same: all that the engine's record of a request knows of its route."""

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
"""Opt-in: JSON texts."""
KIND_OF_TOKENS: Final = "gen_ai.token.type"
ERROR_TYPE: Final = "error.type"
