"""The function that transformers calls in every attention layer, and the per-layer object that it finds there.

transformers passes the module, so the state hangs on the module (`paged_layer`): no global context is needed.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from batching.attention.reference import AttentionVariant
from batching.kv_cache import LayerCache, LayerShape
from batching.step_input import StepInput

ATTENTION_NAME = "quire_paged"
"""Must not contain flash, sdpa or flex_attention: transformers treats such names specially."""


class LayerAttention(Protocol):
    """Writes the new K and V of a step to their slots and attends through the block tables."""

    def forward(
        self, cache: LayerCache, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant
    ) -> torch.Tensor:
        """q `[q_heads, T, dim]`, k and v `[kv_heads, T, dim]` after RoPE -> `[T, q_heads, v_dim]`."""
        ...


class AttentionBackend(LayerAttention, Protocol):
    """LayerAttention for steps that the host has built."""

    def begin(self, step: StepInput) -> None:
        """Called once before the layers of a step run."""
        ...


class LayerProbe:
    """Hangs on an attention module during the load-time probe; notes what passed through and how often."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.has_mask = False
        """The family brings a mask of its own, which the backends would ignore."""
        self.last_key: torch.Tensor | None = None
        self.shape: LayerShape | None = None
        self.variant: AttentionVariant | None = None

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant) -> torch.Tensor:
        self.num_calls += 1
        self.last_key = k.clone()
        self.shape = LayerShape(num_kv_heads=k.shape[0], k_dim=k.shape[2], v_dim=v.shape[2])
        self.variant = variant
        return q.new_zeros(q.shape[1], q.shape[0], v.shape[2])


class PagedLayer:
    """Hangs on an attention module while it serves: this layer's cache and the backend that all layers share."""

    def __init__(self, cache: LayerCache, backend: LayerAttention) -> None:
        self._cache = cache
        self._backend = backend

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant) -> torch.Tensor:
        return self._backend.forward(self._cache, q, k, v, variant)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: q `[1, q_heads, T, dim]` -> (`[1, T, q_heads, v_dim]`, None)."""
    layer: LayerProbe | PagedLayer | None = getattr(module, "paged_layer", None)
    if layer is None:
        layer = LayerProbe()
        module.paged_layer = layer  # type: ignore[assignment]
    if isinstance(layer, LayerProbe) and attention_mask is not None:
        layer.has_mask = True
    scaling = options.get("scaling")
    variant = AttentionVariant(
        scaling=query.shape[3] ** -0.5 if scaling is None else float(scaling),
        sliding_window=options.get("sliding_window"),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
    )
    return layer.forward(query[0], key[0], value[0], variant).unsqueeze(0), None


def register() -> None:
    """Make the function known to transformers under ATTENTION_NAME; calling again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, paged_attention)
