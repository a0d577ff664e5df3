"""Activation of the gate times up, from the fused gate-up product (Triton). Reference: fused_torch.gated_activation."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batching.kernels.fused_torch import Activation
from batching.kernels.narrow_triton import narrowed
from batching.kernels.triton_support import check_rows, next_power_of_two, warps_for

TILE = 1024

_SQRT_8_OVER_PI = tl.constexpr(1.5957691216057308)
_CUBIC = tl.constexpr(0.044715)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_LARGEST_EXPONENT = tl.constexpr(80.0)
"""exp of more overflows; divided by exp(80) every gate is below what float32 adds to anything."""


def gated_activation(gate_up: torch.Tensor, activation: Activation, out: torch.Tensor) -> None:
    """out = act(gate) * up with gate_up `[T, 2 * size]` (gate, then up) and out `[T, size]`, contiguous, one dtype.

    The grid depends on the shapes alone. ValueError for other shapes or an unknown activation.
    """
    num_rows, size = out.shape
    check_rows("out", out, (num_rows, size))
    check_rows("gate_up", gate_up, (num_rows, 2 * size))
    if activation not in {"silu", "gelu", "gelu_tanh"}:
        raise ValueError(f"activation is {activation!r}, expected 'silu', 'gelu' or 'gelu_tanh'.")
    if out.numel() == 0:
        return
    tile = min(TILE, next_power_of_two(size))
    grid = (num_rows, triton.cdiv(size, tile))
    _gated_activation_kernel[grid](gate_up, out, size=size, tile=tile, activation=activation, num_warps=warps_for(tile))


@triton.jit
def _gated_activation_kernel(  # type: ignore[no-untyped-def]
    gate_up_ptr, out_ptr, size: tl.constexpr, tile: tl.constexpr, activation: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * tile + tl.arange(0, tile)
    is_inside = columns < size
    gate_start = gate_up_ptr + row * (2 * size)
    gate = tl.load(gate_start + columns, mask=is_inside, other=0.0).to(tl.float32)
    up = tl.load(gate_start + size + columns, mask=is_inside, other=0.0).to(tl.float32)
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    # Rounded between activation and product, as two operations of torch are.
    activated = narrowed(activated_gate(gate, activation), dtype).to(tl.float32)
    tl.store(out_ptr + row * size + columns, narrowed(activated * up, dtype), mask=is_inside)


@triton.jit
def activated_gate(gate, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """silu(x) = x * sigmoid(x); gelu(x) = x * Phi(x); its tanh form (Hendrycks and Gimpel 2016) is

    x * (1 + tanh(z)) / 2 with z = sqrt(2 / pi) * (x + 0.044715 * x^3), and (1 + tanh(z)) / 2 = sigmoid(2 * z).
    """
    if activation == "silu":
        activated = gate / (1.0 + tl.exp(tl.minimum(-gate, _LARGEST_EXPONENT)))
    elif activation == "gelu_tanh":
        exponent = (gate + gate * gate * gate * _CUBIC) * -_SQRT_8_OVER_PI
        activated = gate / (1.0 + tl.exp(tl.minimum(exponent, _LARGEST_EXPONENT)))
    else:
        activated = 0.5 * gate * (1.0 + tl.erf(gate * _SQRT_HALF))
    return activated
