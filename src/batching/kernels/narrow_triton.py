"""Conversion of float32 to the dtype that is stored, rounded to nearest even on a device and in the interpreter alike.

On a device this is the plain conversion. Triton's interpreter (3.6) cuts bfloat16 off and rounds float8 wrongly where
a carry runs into the exponent, so there the value is first rounded to one that the narrow type holds exactly.
"""

from __future__ import annotations

import triton
import triton.language as tl

from batching.kernels.triton_support import is_interpreted

IS_INTERPRETED = tl.constexpr(is_interpreted())
FP8_MAX = tl.constexpr(448.0)
_NAN_FP8 = tl.constexpr(0x7F)
_SMALLEST_NORMAL_FP8 = tl.constexpr(2.0**-6)
_FP8_MAGIC = tl.constexpr(1.5 * 2.0**14)
"""Numbers of this size stand 2^-9 apart in float32, as far as the subnormal numbers of float8_e4m3fn."""


@triton.jit
def narrowed(x, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """x (float32) in `dtype`, rounded to nearest even; +-inf and NaN stay what they are."""
    if IS_INTERPRETED and dtype == tl.bfloat16:
        x = _keep_high_bits(x, 16)
    return x.to(dtype)


@triton.jit
def to_fp8(x):  # type: ignore[no-untyped-def]
    """x (float32) as float8_e4m3fn: to nearest even, beyond +-448 the largest; a NaN stays one."""
    x = tl.where(x > FP8_MAX, FP8_MAX, tl.where(x < -FP8_MAX, -FP8_MAX, x))
    if IS_INTERPRETED:
        small = (x + _FP8_MAGIC) - _FP8_MAGIC
        exact = tl.where(tl.abs(x) < _SMALLEST_NORMAL_FP8, small, _keep_high_bits(x, 20))
        code = exact.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
        converted = tl.where(x == x, code, _NAN_FP8).to(tl.uint8).to(tl.float8e4nv, bitcast=True)
    else:
        converted = x.to(tl.float8e4nv)
    return converted


@triton.jit
def _keep_high_bits(x, num_cut: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 with its lowest bits rounded away; the carry may run into the exponent, as it should."""
    bits = x.to(tl.uint32, bitcast=True)
    half = (1 << (num_cut - 1)) - 1
    rounded = (((bits + half + ((bits >> num_cut) & 1)) >> num_cut) << num_cut).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)
