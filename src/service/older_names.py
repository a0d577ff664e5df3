"""Names of settings that older services, and older versions of Quire, used.

Some mean a setting of today, others are refused with their successor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from contracts.errors import SettingsError

OLDER_VARIABLES: Final[Mapping[str, str]] = {
    "LLM_MODEL_NAME": "LLM_MODEL",
    "LLM_TORCH_THREADS": "LLM_NUM_THREADS",
    "LLM_KV_CACHE_DTYPE": "LLM_KV_DTYPE",
}
"""Variable to the one that it means."""

OLDER_FLAGS: Final[Mapping[str, str]] = {"--kv-cache-dtype": "--kv-dtype"}
"""Flag to the one that it means."""

SUCCESSORS: Final[Mapping[str, str]] = {
    "LLM_DEBUG": "Use LLM_LOG_LEVEL=debug; the server does not reload itself.",
    "APP_HOST": "Use LLM_HOST.",
    "APP_PORT": "Use LLM_PORT.",
    "LOG_LEVEL": "Use LLM_LOG_LEVEL.",
    "CORS_ORIGINS": "Use LLM_CORS_ORIGINS, with commas between the origins.",
    "PROJECT_NAME": "Leave it out: the name in the API is LLM_SERVED_MODEL_NAME.",
    "QUEUE_MODE": "Leave it out: the batch is continuous; LLM_MAX_NUM_SEQS=1 runs one request after the other.",
    "PICOLLM_BASE_DIR": "Use LLM_MODEL=directory.",
    "PICOLLM_DTYPE": "Use LLM_DTYPE.",
}
"""Variable that a .env file of an older service may hold, to what to do instead."""

MISLEADING_MODELS: Final[Mapping[str, str]] = {
    "llama3-1b": "It used to mean DialoGPT medium. Use llama-3.2-1b-instruct, or microsoft/DialoGPT-medium.",
    "llama3-3b": "It used to mean GPT-2 Large. Use llama-3.2-3b-instruct, or gpt2-large.",
}
"""Model names that said something else than what they loaded."""


def refuse_misleading(model: str) -> None:
    """Raise SettingsError for a model name that was misleading."""
    if (advice := MISLEADING_MODELS.get(model)) is not None:
        raise SettingsError(f"MODEL is '{model}', which is not a model of that name. {advice}")
