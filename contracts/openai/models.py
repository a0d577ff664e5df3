"""Wire structs of GET /v1/models."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One served model; the keys after owned_by are Quire's own."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "quire"
    root: str
    max_model_len: int
    architecture: str
    dtype: str
    num_parameters: int


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every served model."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
