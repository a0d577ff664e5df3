"""What becomes of every request field: honoured, checked as a label, honoured for some values only, or refused.

The two tables are the whole truth: a test compares them with the wire structs and with OpenAI's reference, and no
field is accepted and then ignored. Knows no requests.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Treatment(enum.Enum):
    """What a request field does here."""

    HONOURED = "honoured"
    LABEL = "label"
    """Checked against OpenAI's limits; never changes the answer."""
    SOME_VALUES = "some values"
    """Only the values that describe what the server does anyway; null always does."""
    REFUSED = "refused"


class FieldRule(msgspec.Struct, frozen=True, kw_only=True):
    """The treatment of one field, and for SOME_VALUES which."""

    treatment: Treatment
    allowed: tuple[Any, ...] = ()


HONOURED: Final = FieldRule(treatment=Treatment.HONOURED)
LABEL: Final = FieldRule(treatment=Treatment.LABEL)
REFUSED: Final = FieldRule(treatment=Treatment.REFUSED)


def _only(*allowed: Any) -> FieldRule:
    return FieldRule(treatment=Treatment.SOME_VALUES, allowed=allowed)


CHAT_RULES: Final[Mapping[str, FieldRule]] = {
    "messages": HONOURED,
    "model": HONOURED,
    "frequency_penalty": HONOURED,
    "logit_bias": HONOURED,
    "logprobs": HONOURED,
    "top_logprobs": HONOURED,
    "max_tokens": HONOURED,
    "max_completion_tokens": HONOURED,
    "n": HONOURED,
    "presence_penalty": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "user": LABEL,
    "safety_identifier": LABEL,
    "prompt_cache_key": LABEL,
    "metadata": LABEL,
    "response_format": _only({"type": "text"}),
    "tools": _only([]),
    "tool_choice": _only("none", "auto"),
    "parallel_tool_calls": _only(True, False),
    "modalities": _only(["text"]),
    "store": _only(False),
    "service_tier": _only("auto", "default"),
    "reasoning_effort": _only("none"),
    "verbosity": _only("medium"),
    "prompt_cache_retention": _only("in_memory", "in-memory"),
    "audio": REFUSED,
    "functions": REFUSED,
    "function_call": REFUSED,
    "prediction": REFUSED,
    "web_search_options": REFUSED,
    "moderation": REFUSED,
    "prompt_cache_options": REFUSED,
    "top_k": HONOURED,
    "min_p": HONOURED,
    "repetition_penalty": HONOURED,
    "min_tokens": HONOURED,
    "ignore_eos": HONOURED,
    "stop_token_ids": HONOURED,
    "priority": HONOURED,
    "preset": HONOURED,
    "conversation": HONOURED,
}

COMPLETION_RULES: Final[Mapping[str, FieldRule]] = {
    "prompt": HONOURED,
    "model": HONOURED,
    "best_of": HONOURED,
    "echo": HONOURED,
    "frequency_penalty": HONOURED,
    "logit_bias": HONOURED,
    "logprobs": HONOURED,
    "max_tokens": HONOURED,
    "n": HONOURED,
    "presence_penalty": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "user": LABEL,
    "metadata": LABEL,
    "suffix": REFUSED,
    "prompt_logprobs": REFUSED,
    "top_k": HONOURED,
    "min_p": HONOURED,
    "repetition_penalty": HONOURED,
    "min_tokens": HONOURED,
    "ignore_eos": HONOURED,
    "stop_token_ids": HONOURED,
    "priority": HONOURED,
    "preset": HONOURED,
}
