"""What applies where a request says nothing. Precedence: request, preset, conversation, model, route.

Knows the wire structs; limits of length are `translate`'s, as they depend on the prompt.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from contracts.conversations import GenerationDefaults
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import CompletionRequest
from contracts.presets import PRESETS, Preset

OPTIONS: Final = ("temperature", "top_p", "top_k", "min_p", "seed")

NO_DEFAULTS: Final = GenerationDefaults()

B = TypeVar("B", ChatCompletionRequest, CompletionRequest)


def fill_in(body: B, defaults: GenerationDefaults | Preset) -> B:
    """The request with the defaults where it says nothing itself; its limit of length stays."""
    changes = {name: getattr(defaults, name) for name in OPTIONS if getattr(body, name) is None}
    return msgspec.structs.replace(body, **changes)


def with_preset(body: B) -> B:
    """The request with the options of the preset that it names; doing it again changes nothing."""
    return body if body.preset is None else fill_in(body, PRESETS[body.preset])


def preset_max_tokens(body: ChatCompletionRequest | CompletionRequest) -> int | None:
    """Most tokens of an answer by the preset that the request names."""
    return None if body.preset is None else PRESETS[body.preset].max_tokens
