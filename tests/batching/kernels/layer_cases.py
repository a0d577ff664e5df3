"""Tables of shapes for the kernels between the products of a layer, and the comparison of each with its reference.

A check returns the largest difference in units in the last place of the dtype, so 0 is equality.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batching.kernels import fused_torch, gated_activation_triton, rms_norm_triton, rope_kv_write_triton
from batching.kernels.fused_torch import Activation, HeadLayout, NormKind

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def drawn(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(dtype).to(device)


SMALLEST = 2.0**-6


def units_apart(found: torch.Tensor, wanted: torch.Tensor, smallest: float = SMALLEST) -> float:
    """Largest difference in units of the last place of the wanted values, and of `smallest` where these are smaller."""
    assert found.dtype == wanted.dtype
    assert torch.equal(found.isnan(), wanted.isnan())
    resolution = torch.finfo(wanted.dtype).eps
    found, wanted = found.double().nan_to_num(), wanted.double().nan_to_num()
    unit = resolution * torch.exp2(torch.floor(torch.log2(wanted.abs().clamp_min(smallest))))
    return float(((found - wanted).abs() / unit).max()) if wanted.numel() else 0.0


Pairs = list[tuple[torch.Tensor, torch.Tensor]]
"""What a kernel left, and what the reference did."""


def differing(pairs: Pairs) -> float:
    """The largest difference of any pair."""
    return max(units_apart(found, wanted) for found, wanted in pairs)


@dataclass(frozen=True)
class NormCase:
    num_rows: int
    width: int
    dtype: torch.dtype
    has_residual: bool = True
    is_offset: bool = False


NORM_CASES = (
    *(NormCase(3, 96, dtype, has, offset) for dtype in DTYPES for has in (True, False) for offset in (True, False)),
    NormCase(1, 1, torch.float32),
    NormCase(7, 577, torch.bfloat16),
    NormCase(2, 4096, torch.float16),
    NormCase(2, 3001, torch.float32, is_offset=True),
    NormCase(0, 64, torch.float32),
)


def check_norm(case: NormCase, device: torch.device) -> float:
    return differing(launch_norm(case, device))


def launch_norm(case: NormCase, device: torch.device) -> Pairs:
    x = drawn(case.num_rows, case.width, dtype=case.dtype, device=device)
    residual = drawn(case.num_rows, case.width, dtype=case.dtype, device=device, seed=1) if case.has_residual else None
    weight = drawn(case.width, dtype=case.dtype, device=device, seed=2)
    kind = NormKind(eps=1e-5, is_offset=case.is_offset)
    wanted, total = fused_torch.add_rms_norm(x, residual, weight, kind)
    out = torch.empty_like(x)
    rms_norm_triton.add_rms_norm(x, residual, weight, kind, out)
    return [(out, wanted)] if residual is None else [(out, wanted), (residual, total)]


@dataclass(frozen=True)
class ActivationCase:
    num_rows: int
    size: int
    dtype: torch.dtype
    activation: Activation


ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu", "gelu_tanh")
ACTIVATION_CASES = (
    *(ActivationCase(3, 77, dtype, activation) for dtype in DTYPES for activation in ACTIVATIONS),
    ActivationCase(2, 1025, torch.float32, "silu"),
    ActivationCase(1, 1, torch.bfloat16, "silu"),
    ActivationCase(0, 8, torch.float32, "silu"),
)


def check_activation(case: ActivationCase, device: torch.device) -> float:
    [(found, wanted)] = launch_activation(case, device)
    # torch loses digits where 1 + erf or 1 + tanh is near 0: an absolute error of gate * up, here up to 300.
    is_cancelling = case.activation != "silu" and case.dtype is torch.float32
    return units_apart(found, wanted, 4.0 if is_cancelling else SMALLEST)


def launch_activation(case: ActivationCase, device: torch.device) -> Pairs:
    gate_up = drawn(case.num_rows, 2 * case.size, dtype=case.dtype, device=device, scale=6.0)
    out = torch.empty(case.num_rows, case.size, dtype=case.dtype, device=device)
    gated_activation_triton.gated_activation(gate_up, case.activation, out)
    return [(out, fused_torch.gated_activation(gate_up, case.activation))]


@dataclass(frozen=True)
class RopeCase:
    layout: HeadLayout
    half: int
    dtype: torch.dtype = torch.float32
    cache_dtype: torch.dtype | None = None
    """None: as the input."""
    has_norm: bool = False
    is_offset: bool = False
    num_tokens: int = 5


def layout(num_heads: int, num_kv_heads: int, k_dim: int, v_dim: int) -> HeadLayout:
    return HeadLayout(num_heads=num_heads, num_kv_heads=num_kv_heads, k_dim=k_dim, v_dim=v_dim)


FP8 = torch.float8_e4m3fn
ROPE_CASES = (
    RopeCase(layout(4, 2, 24, 24), 12, torch.float32, cache_dtype=FP8),
    *(RopeCase(layout(4, 2, 16, 16), 8, dtype, has_norm=has) for dtype in DTYPES for has in (True, False)),
    RopeCase(layout(3, 1, 80, 80), 10, torch.float16),
    RopeCase(layout(2, 2, 12, 20), 4, torch.bfloat16, has_norm=True, is_offset=True),
    RopeCase(layout(4, 2, 64, 64), 32, torch.bfloat16, cache_dtype=FP8, has_norm=True),
    RopeCase(layout(1, 1, 128, 128), 64, torch.float16, num_tokens=1),
    RopeCase(layout(2, 1, 16, 16), 8, num_tokens=0),
)
BLOCK_SIZE = 4
TRASH_BLOCK = 6


def check_rope(case: RopeCase, device: torch.device) -> float:
    return differing([(as_comparable(a), as_comparable(b)) for a, b in launch_rope(case, device)])


def launch_rope(case: RopeCase, device: torch.device) -> Pairs:
    """Half of the tokens pad the step: they share slots of the trash block, which is not compared."""
    qkv = drawn(case.num_tokens, case.layout.row_len, dtype=case.dtype, device=device, scale=30.0)
    angles = torch.arange(32, device=device)[:, None] * 0.7 ** torch.arange(case.half, device=device)
    positions = torch.arange(case.num_tokens, device=device) * 5 + 2
    rope = angles.cos().float(), angles.sin().float(), positions
    slots = (torch.arange(case.num_tokens, device=device) * 7 + 3) % (TRASH_BLOCK * BLOCK_SIZE)
    slots[case.num_tokens // 2 + 1 :] = TRASH_BLOCK * BLOCK_SIZE + 1
    norms = None
    if case.has_norm:
        weights = [drawn(case.layout.k_dim, dtype=case.dtype, device=device, seed=seed) for seed in (1, 2)]
        norms = weights[0], weights[1], NormKind(eps=1e-6, is_offset=case.is_offset)
    scales = torch.tensor([0.11, 0.25], device=device) if case.cache_dtype is FP8 else None
    found, wanted = make_cache(case, device), make_cache(case, device)
    q_out = torch.empty(case.num_tokens, case.layout.num_heads, case.layout.k_dim, dtype=case.dtype, device=device)
    rope_kv_write_triton.rope_kv_write(qkv, case.layout, rope, slots.int(), found, q_out, norms, scales)
    q = fused_torch.rope_kv_write(qkv, case.layout, rope, slots.int(), wanted, norms, scales)
    return [(q_out, q), *zip(found, wanted, strict=True)]


def make_cache(case: RopeCase, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (TRASH_BLOCK + 1, case.layout.num_kv_heads, BLOCK_SIZE)
    dtype = case.cache_dtype or case.dtype
    k = torch.zeros(*shape, case.layout.k_dim, device=device).to(dtype)
    return k, torch.zeros(*shape, case.layout.v_dim, device=device).to(dtype)


def as_comparable(tensor: torch.Tensor) -> torch.Tensor:
    """A cache without its trash block; float8 as float16, whose units are 128 times smaller, so it must be equal."""
    if tensor.dim() == 4:
        tensor = (tensor.half() if tensor.dtype is FP8 else tensor)[:TRASH_BLOCK]
    return tensor
