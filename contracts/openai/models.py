"""Wire structs of /v1/models: OpenAI's list and card, with what is known of each declared model."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.model_state import ModelPhase
from contracts.sampling import SamplingDefaults

ModelKind = Literal["chat", "base"]


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a model is that is being loaded."""

    stage: str
    fraction: float | None
    """Of the stage, 0 to 1, where that is known."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One declared model; the keys after owned_by are Quire's own. What only a loaded model knows is null before."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time at which it became ready; 0 before."""
    owned_by: str = "quire"
    root: str
    state: ModelPhase
    is_default: bool
    display_name: str
    description: str
    family: str
    kind: ModelKind | None
    """chat, or base: /v1/completions alone."""
    progress: LoadProgress | None
    error: str | None
    """Why the last attempt to load it failed."""
    memory_bytes: int | None
    """What it takes, as far as that is known."""
    load_s: float | None
    max_model_len: int | None
    architecture: str | None
    dtype: str | None
    num_parameters: int | None
    sampling_defaults: SamplingDefaults | None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every declared model, the loaded ones and the others."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class UnloadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of an unload; all of it may be absent."""

    timeout_s: Annotated[float, Meta(ge=0, le=86400)] | None = None
    """How long requests that run may still run; absent: until they end."""


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of an order that takes none: absent, or an empty object."""
