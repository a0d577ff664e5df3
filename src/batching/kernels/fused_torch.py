"""The gaps between a layer's matrix products in plain torch: what the Triton kernels beside this file must compute.

Every step rounds where transformers rounds (to the dtype of the tensor that it would have had there), so a model in
bfloat16 says the same through either. Runs on any device and is used in tests alone.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import torch
from torch.nn import functional

from batching.kv_cache import bytes_or_numbers

Activation = Literal["silu", "gelu", "gelu_tanh"]
FP8_MAX = 448.0
"""Largest finite float8_e4m3fn."""


class NormKind(msgspec.Struct, frozen=True, kw_only=True):
    """RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps), times the weight."""

    eps: float
    is_offset: bool = False
    """False: rounded, then times w (Llama). True: times 1 + w in float32, then rounded (Gemma)."""


class HeadLayout(msgspec.Struct, frozen=True, kw_only=True):
    """How a row of the fused query, key and value product is divided: q heads, then k heads, then v heads."""

    num_heads: int
    num_kv_heads: int
    k_dim: int
    """Elements of a query or key head."""
    v_dim: int

    @property
    def row_len(self) -> int:
        return (self.num_heads + self.num_kv_heads) * self.k_dim + self.num_kv_heads * self.v_dim


def rms_norm(x: torch.Tensor, weight: torch.Tensor, kind: NormKind) -> torch.Tensor:
    """x `[..., width]` -> the same shape and dtype; weight `[width]`."""
    values = x.float()
    normed = values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + kind.eps)
    if kind.is_offset:
        return (normed * (1.0 + weight.float())).to(x.dtype)
    return (weight * normed.to(x.dtype)).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, kind: NormKind
) -> tuple[torch.Tensor, torch.Tensor]:
    """(RMSNorm of residual + x, residual + x), both `[T, width]` in x's dtype; the sum is rounded before the norm."""
    total = x if residual is None else residual + x
    return rms_norm(total, weight, kind), total


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE in the half-rotation form: element i is paired with i + half; what lies behind 2 * half passes through.

    heads `[T, n, dim]`; cos, sin `[T, half]` in the dtype of the heads. Both products are rounded before the sum.
    """
    half = cos.shape[1]
    first, second = heads[..., :half], heads[..., half : 2 * half]
    cos, sin = cos[:, None], sin[:, None]
    rotated = first * cos + -second * sin, second * cos + first * sin
    return torch.cat([*rotated, heads[..., 2 * half :]], dim=-1)


def rope_kv_write(
    qkv: torch.Tensor,
    layout: HeadLayout,
    rope: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
    norms: tuple[torch.Tensor, torch.Tensor, NormKind] | None = None,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalise and rotate q and k, write k and v to their slots, return q `[T, num_heads, k_dim]`.

    Arguments as in rope_kv_write_triton.rope_kv_write.
    """
    cos, sin, positions = rope
    num_tokens, width = qkv.shape[0], layout.num_heads * layout.k_dim
    end = width + layout.num_kv_heads * layout.k_dim
    q, k, v = qkv[:, :width], qkv[:, width:end], qkv[:, end:]
    q, k = (part.view(num_tokens, part.shape[1] // layout.k_dim, layout.k_dim) for part in (q, k))
    if norms is not None:
        q, k = rms_norm(q, norms[0], norms[2]), rms_norm(k, norms[1], norms[2])
    cos, sin = cos[positions].to(qkv.dtype), sin[positions].to(qkv.dtype)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    block_size = cache[0].shape[2]
    blocks, offsets = slots.long() // block_size, slots.long() % block_size
    v = v.view(num_tokens, layout.num_kv_heads, layout.v_dim)
    for index, (target, values) in enumerate(zip(cache, (k, v), strict=True)):
        kept = stored(values, target.dtype, None if scales is None else scales[index])
        bytes_or_numbers(target)[blocks, :, offsets] = bytes_or_numbers(kept)
    return q


def stored(values: torch.Tensor, dtype: torch.dtype, scale: torch.Tensor | None) -> torch.Tensor:
    """What the cache keeps: the value itself, or value / scale within the range of float8_e4m3fn."""
    if scale is None:
        return values.to(dtype)
    return (values.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(dtype)


def gated_activation(gate_up: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(gate) * up with gate_up `[T, 2 * size]` -> `[T, size]`; the activation is rounded before the product."""
    gate, up = gate_up.chunk(2, dim=1)
    if activation == "silu":
        return functional.silu(gate) * up
    return functional.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none") * up
