"""Residual add and RMSNorm in one pass over each row (Triton). The reference is fused_torch.add_rms_norm."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batching.kernels.fused_torch import NormKind
from batching.kernels.narrow_triton import narrowed
from batching.kernels.triton_support import check_rows, warps_for, whole_row_tile


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, kind: NormKind, out: torch.Tensor
) -> None:
    """residual += x, then out = RMSNorm(residual) * weight; without a residual, out = RMSNorm(x) * weight.

    x, residual, out `[T, width]` contiguous, one dtype; weight `[width]`; out may be x. The residual is written in
    place. One program a row: the grid depends on T alone. ValueError for other shapes, or rows over MAX_TILE.
    """
    num_rows, width = x.shape
    check_rows("x", x, (num_rows, width))
    check_rows("weight", weight, (width,))
    check_rows("out", out, (num_rows, width))
    if residual is not None:
        check_rows("residual", residual, (num_rows, width))
    tile = whole_row_tile(width)
    if num_rows == 0:
        return
    _add_rms_norm_kernel[(num_rows,)](
        x,
        x if residual is None else residual,
        weight,
        out,
        kind.eps,
        width=width,
        tile=tile,
        has_residual=residual is not None,
        is_offset=kind.is_offset,
        num_warps=warps_for(tile),
    )


@triton.jit
def _add_rms_norm_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    eps,
    width: tl.constexpr,
    tile: tl.constexpr,
    has_residual: tl.constexpr,
    is_offset: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, tile)
    is_inside = columns < width
    x = tl.load(x_ptr + start + columns, mask=is_inside, other=0.0)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    values = x.to(tl.float32)
    if has_residual:
        values += tl.load(residual_ptr + start + columns, mask=is_inside, other=0.0).to(tl.float32)
        rounded = narrowed(values, dtype)
        tl.store(residual_ptr + start + columns, rounded, mask=is_inside)
        values = rounded.to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=is_inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, axis=0) / width + eps)
    normed = scaled_by_weight(values * inverse, weight, dtype, is_offset)
    tl.store(out_ptr + start + columns, narrowed(normed, dtype), mask=is_inside)


@triton.jit
def scaled_by_weight(normed, weight, dtype: tl.constexpr, is_offset: tl.constexpr):  # type: ignore[no-untyped-def]
    """normed (float32) times w or 1 + w, in float32 still to be rounded; a product of two rounded numbers is exact."""
    return normed * (1.0 + weight) if is_offset else narrowed(normed, dtype).to(tl.float32) * weight
