"""Named sets of options: one table for the API, the page and the terminal. A request names one as `preset`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

PresetName = Literal["balanced", "creative", "deterministic", "short-answer"]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """What applies where a request that names it says nothing; null leaves it to the conversation and the model."""

    id: PresetName
    temperature: float
    top_k: int
    top_p: float | None = None
    min_p: float | None = None
    max_tokens: int
    """At most what the window leaves."""
    seed: int | None = None


class PresetList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Preset]


_ALL: Final = (
    Preset(id="balanced", temperature=0.8, top_k=50, max_tokens=512),
    Preset(id="creative", temperature=1.1, top_k=80, top_p=0.95, max_tokens=768),
    Preset(id="deterministic", temperature=0.0, top_k=1, max_tokens=256, seed=42),
    Preset(id="short-answer", temperature=0.2, top_k=20, max_tokens=128, seed=42),
)

PRESETS: Final[Mapping[PresetName, Preset]] = {preset.id: preset for preset in _ALL}
