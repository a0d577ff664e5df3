"""What a checkpoint's generation_config.json says: where sequences end, and how to sample unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.errors import ModelNotUsable
from contracts.sampling import SamplingDefaults


class GenerationConfig(msgspec.Struct, frozen=True):
    """The keys that Quire reads; null and absent mean the same."""

    eos_token_id: int | list[int] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        """The sampling values that are given, OpenAI's defaults elsewhere."""
        values = {name: getattr(self, name) for name in SamplingDefaults.__struct_fields__}
        return SamplingDefaults(**{name: value for name, value in values.items() if value is not None})


def read_generation_config(path: Path) -> GenerationConfig:
    """The model directory's generation_config.json; a model without one has no wishes. Raises ModelNotUsable."""
    file = path / "generation_config.json"
    if not file.is_file():
        return GenerationConfig()
    try:
        return msgspec.json.decode(file.read_bytes(), type=GenerationConfig)
    except (msgspec.DecodeError, OSError) as error:
        raise ModelNotUsable(f"{file} cannot be read: {error}; mend or remove it") from error


def eos_token_ids(generation: GenerationConfig, model_eos: int | list[int] | None) -> list[int]:
    """End-of-sequence ids of generation_config.json and config.json together, sorted."""
    ids: set[int] = set()
    for entry in (generation.eos_token_id, model_eos):
        ids.update(entry if isinstance(entry, list) else [] if entry is None else [entry])
    return sorted(ids)
