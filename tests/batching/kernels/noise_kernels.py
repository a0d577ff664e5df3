"""Kernels that let a test look at the noise of the device sampler."""

from __future__ import annotations

import triton
import triton.language as tl

from batching.kernels.sampler_triton import _exact_noise, _noise_keys, _random_bits, _rough_noise


@triton.jit  # type: ignore[untyped-decorator]
def noise_kernel(  # type: ignore[no-untyped-def]
    seeds_ptr, positions_ptr, bits_ptr, exact_ptr, rough_ptr, num_ids: tl.constexpr
):
    row = tl.program_id(0)
    key_0, key_1 = _noise_keys(tl.load(seeds_ptr + row), tl.load(positions_ptr + row))
    token_id = tl.arange(0, num_ids)
    bits = _random_bits(token_id, key_0, key_1)
    tl.store(bits_ptr + row * num_ids + token_id, bits.to(tl.int64))
    tl.store(exact_ptr + row * num_ids + token_id, _exact_noise(bits))
    tl.store(rough_ptr + row * num_ids + token_id, _rough_noise(bits))


@triton.jit  # type: ignore[untyped-decorator]
def rough_kernel(bits_ptr, exact_ptr, rough_ptr, tile: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.arange(0, tile)
    bits = tl.load(bits_ptr + index).to(tl.uint32)
    tl.store(exact_ptr + index, _exact_noise(bits))
    tl.store(rough_ptr + index, _rough_noise(bits))
