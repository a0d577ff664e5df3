"""From the fused query, key and value product to attention's inputs in one pass (Triton): optional RMSNorm of each q
and k head (Qwen3, Gemma 3), rotary positions (Su et al. 2021), k and v into the paged cache. The reference is
fused_torch.rope_kv_write; which slot a token has is decided elsewhere (step_input_triton).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batching.kernels.fused_torch import HeadLayout, NormKind
from batching.kernels.narrow_triton import narrowed, to_fp8
from batching.kernels.rms_norm_triton import scaled_by_weight
from batching.kernels.triton_support import check_rows, next_power_of_two


def rope_kv_write(
    qkv: torch.Tensor,
    layout: HeadLayout,
    rope: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
    q_out: torch.Tensor,
    norms: tuple[torch.Tensor, torch.Tensor, NormKind] | None = None,
    scales: torch.Tensor | None = None,
) -> None:
    """Normalise and rotate q and k, leave q in `q_out`, write k and v to their slots.

    qkv `[T, layout.row_len]`; rope: cos and sin `[max_len, half]` (half at most k_dim / 2: elements from 2 * half on
    pass through) and positions `[T]` int64 below max_len; slots `[T]` int32: block * block_size + offset, where the
    tokens that pad a step are given slots in a block that nobody reads; cache: k `[num_blocks, num_kv_heads,
    block_size, k_dim]`, v likewise with v_dim; q_out `[T, num_heads, k_dim]`; norms: weights of q and k `[k_dim]`.
    scales `[2]` float32: a float8_e4m3fn cache keeps k / scales[0] and v / scales[1]; None for other caches.

    Several tokens may share a slot only where nobody reads it. The grid depends on the shapes alone.
    ValueError for other shapes, and for scales without float8 or the reverse.
    """
    _check(qkv, layout, rope, slots, cache, q_out)
    is_fp8 = cache[0].dtype is torch.float8_e4m3fn
    if is_fp8 != (scales is not None):
        raise ValueError(f"scales are {scales}, but the cache is {cache[0].dtype}: float8_e4m3fn needs them.")
    num_tokens, half = qkv.shape[0], rope[0].shape[1]
    if num_tokens == 0:
        return
    cos, sin, positions = rope
    q_norm, k_norm, kind = norms if norms is not None else (cos, cos, NormKind(eps=0.0))
    _rope_kv_write_kernel[(num_tokens, layout.num_heads + 2 * layout.num_kv_heads)](
        qkv,
        cos,
        sin,
        positions,
        slots,
        cache[0],
        cache[1],
        q_out,
        q_norm,
        k_norm,
        cos if scales is None else scales,
        kind.eps,
        num_heads=layout.num_heads,
        num_kv_heads=layout.num_kv_heads,
        block_size=cache[0].shape[2],
        k_dim=layout.k_dim,
        v_dim=layout.v_dim,
        half=half,
        half_tile=next_power_of_two(half),
        rest_tile=next_power_of_two(layout.k_dim - 2 * half),
        v_tile=next_power_of_two(layout.v_dim),
        has_norm=norms is not None,
        is_offset=kind.is_offset,
        is_fp8=is_fp8,
        num_warps=1,
    )


def _check(
    qkv: torch.Tensor,
    layout: HeadLayout,
    rope: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
    q_out: torch.Tensor,
) -> None:
    num_tokens, half = qkv.shape[0], rope[0].shape[1]
    num_blocks, _, block_size, _ = cache[0].shape
    check_rows("qkv", qkv, (num_tokens, layout.row_len))
    check_rows("cos", rope[0], (None, half))
    check_rows("sin", rope[1], tuple(rope[0].shape))
    check_rows("positions", rope[2], (num_tokens,))
    check_rows("slots", slots, (num_tokens,))
    check_rows("k cache", cache[0], (num_blocks, layout.num_kv_heads, block_size, layout.k_dim))
    check_rows("v cache", cache[1], (num_blocks, layout.num_kv_heads, block_size, layout.v_dim))
    check_rows("q_out", q_out, (num_tokens, layout.num_heads, layout.k_dim))
    if not 0 < half <= layout.k_dim // 2:
        raise ValueError(f"cos has {half} columns, expected 1 to {layout.k_dim // 2}, half of a head.")


@triton.jit
def _rope_kv_write_kernel(  # type: ignore[no-untyped-def]
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    slots_ptr,
    k_ptr,
    v_ptr,
    q_out_ptr,
    q_norm_ptr,
    k_norm_ptr,
    scales_ptr,
    eps,
    num_heads: tl.constexpr,
    num_kv_heads: tl.constexpr,
    block_size: tl.constexpr,
    k_dim: tl.constexpr,
    v_dim: tl.constexpr,
    half: tl.constexpr,
    half_tile: tl.constexpr,
    rest_tile: tl.constexpr,
    v_tile: tl.constexpr,
    has_norm: tl.constexpr,
    is_offset: tl.constexpr,
    is_fp8: tl.constexpr,
):
    """One program for each token and head: of q, then k, then v."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    row_len: tl.constexpr = (num_heads + num_kv_heads) * k_dim + num_kv_heads * v_dim
    row_ptr = qkv_ptr + token * row_len
    dtype: tl.constexpr = qkv_ptr.dtype.element_ty
    if head < num_heads + num_kv_heads:
        norm_ptr = k_norm_ptr
        if head < num_heads:
            norm_ptr = q_norm_ptr
        pair = tl.arange(0, half_tile)
        is_pair = pair < half
        behind = 2 * half + tl.arange(0, rest_tile)
        is_behind = behind < k_dim
        head_ptr = row_ptr + head * k_dim
        first = tl.load(head_ptr + pair, mask=is_pair, other=0.0).to(tl.float32)
        second = tl.load(head_ptr + half + pair, mask=is_pair, other=0.0).to(tl.float32)
        rest = tl.load(head_ptr + behind, mask=is_behind, other=0.0).to(tl.float32)
        if has_norm:
            total = tl.sum(first * first + second * second, axis=0) + tl.sum(rest * rest, axis=0)
            inverse = tl.rsqrt(total / k_dim + eps)
            first = _normed(first * inverse, norm_ptr + pair, is_pair, dtype, is_offset)
            second = _normed(second * inverse, norm_ptr + half + pair, is_pair, dtype, is_offset)
            rest = _normed(rest * inverse, norm_ptr + behind, is_behind, dtype, is_offset)
        angle = tl.load(positions_ptr + token).to(tl.int64) * half + pair
        cos = narrowed(tl.load(cos_ptr + angle, mask=is_pair, other=0.0).to(tl.float32), dtype).to(tl.float32)
        sin = narrowed(tl.load(sin_ptr + angle, mask=is_pair, other=0.0).to(tl.float32), dtype).to(tl.float32)
        # Both products are rounded before the sum, as transformers' two multiplications round them.
        left = _product(first, cos, dtype) - _product(second, sin, dtype)
        right = _product(second, cos, dtype) + _product(first, sin, dtype)
        left, right = narrowed(left, dtype), narrowed(right, dtype)
        if head < num_heads:
            out_ptr = q_out_ptr + (token * num_heads + head) * k_dim
            tl.store(out_ptr + pair, left, mask=is_pair)
            tl.store(out_ptr + half + pair, right, mask=is_pair)
            tl.store(out_ptr + behind, narrowed(rest, dtype), mask=is_behind)
        else:
            line = _cache_line(slots_ptr + token, head - num_heads, num_kv_heads, block_size) * k_dim
            _store(k_ptr + line + pair, left, is_pair, scales_ptr, is_fp8)
            _store(k_ptr + line + half + pair, right, is_pair, scales_ptr, is_fp8)
            _store(k_ptr + line + behind, narrowed(rest, dtype), is_behind, scales_ptr, is_fp8)
    else:
        kv_head = head - num_heads - num_kv_heads
        column = tl.arange(0, v_tile)
        is_inside = column < v_dim
        start = (num_heads + num_kv_heads) * k_dim + kv_head * v_dim
        value = tl.load(row_ptr + start + column, mask=is_inside, other=0.0)
        line = _cache_line(slots_ptr + token, kv_head, num_kv_heads, block_size) * v_dim
        _store(v_ptr + line + column, value, is_inside, scales_ptr + 1, is_fp8)


@triton.jit
def _cache_line(slot_ptr, kv_head, num_kv_heads: tl.constexpr, block_size: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row of the cache seen as `[num_blocks * num_kv_heads * block_size, dim]`; int64: pools exceed 2^31 elements."""
    slot = tl.load(slot_ptr).to(tl.int64)
    return ((slot // block_size) * num_kv_heads + kv_head) * block_size + slot % block_size


@triton.jit
def _normed(scaled, weight_ptr, is_inside, dtype: tl.constexpr, is_offset: tl.constexpr):  # type: ignore[no-untyped-def]
    weight = tl.load(weight_ptr, mask=is_inside, other=0.0).to(tl.float32)
    return narrowed(scaled_by_weight(scaled, weight, dtype, is_offset), dtype).to(tl.float32)


@triton.jit
def _product(a, b, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    return narrowed(a * b, dtype).to(tl.float32)


@triton.jit
def _store(target_ptr, value, is_inside, scale_ptr, is_fp8: tl.constexpr):  # type: ignore[no-untyped-def]
    if is_fp8:
        tl.store(target_ptr, to_fp8(tl.div_rn(value.to(tl.float32), tl.load(scale_ptr))), mask=is_inside)
    else:
        tl.store(target_ptr, narrowed(value.to(tl.float32), target_ptr.dtype.element_ty), mask=is_inside)
