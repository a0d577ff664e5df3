"""bfloat16 for numba, which has no such type: stored as uint16, computed as float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
"""Reordered sums, but NaN and infinity keep their meaning: broken rows must be seen."""


@intrinsic
def bits_to_float(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bits are this uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def float_to_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


def load(element: Any) -> Any:
    """A stored element as float32: uint16 is bfloat16, float32 is itself."""
    raise NotImplementedError("only inside compiled kernels")


@overload(load)
def _load(element: Any) -> Any:
    if element == types.uint16:

        def from_bfloat16(element: Any) -> Any:
            return bits_to_float(np.uint32(element) << np.uint32(16))

        return from_bfloat16

    def unchanged(element: Any) -> Any:
        return element

    return unchanged


def rounded(value: Any, like: Any) -> Any:
    """A float32 in the storage type of `like`; bfloat16 rounds to nearest even, NaN stays NaN."""
    raise NotImplementedError("only inside compiled kernels")


@overload(rounded)
def _rounded(value: Any, like: Any) -> Any:
    if like == types.uint16:

        def to_bfloat16(value: Any, like: Any) -> Any:
            bits = float_to_bits(np.float32(value))
            even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            return np.uint16((bits | np.uint32(0x400000) if is_nan else even) >> np.uint32(16))

        return to_bfloat16

    def to_float32(value: Any, like: Any) -> Any:
        return np.float32(value)

    return to_float32


@register_jitable
def exp(x: Any) -> Any:
    """e^x for float32 x, relative error below 3e-7 + 1e-7 |x|: 2^n times a polynomial in the fraction.

    It has no branch and no call, so that the loops around it are vectorised.

    Coefficients: Taylor of 2^f on [-0.5, 0.5] to degree 7. The exponent is clamped to [-126, 127.4], so that nothing
    overflows; NaN stays NaN.
    """
    scaled = x * np.float32(1.4426950408889634)
    scaled = np.float32(-126.0) if scaled < np.float32(-126.0) else scaled
    scaled = np.float32(127.4) if scaled > np.float32(127.4) else scaled
    whole = np.int32(scaled + np.float32(128.5)) - np.int32(128)
    f = scaled - np.float32(whole)
    p = np.float32(1.5252734e-5)
    p = p * f + np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1.0)
    return p * bits_to_float(np.uint32(whole + np.int32(127)) << np.uint32(23))
