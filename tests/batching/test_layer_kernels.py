"""The numba kernels between the products of a layer, against plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from torch.nn import functional

from batching.kernels import layer_cpu
from batching.kernels.bfloat16_cpu import exp, load, rounded
from batching.kernels.views import as_array

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
NUM_TOKENS = 19


def _exp_all(values: Any, out: Any) -> None:
    for i in range(values.shape[0]):
        out[i] = exp(values[i])


def _round_trip(bits: Any, out: Any) -> None:
    for i in range(bits.shape[0]):
        out[i] = rounded(load(bits[i]), bits[i])


def _round_all(values: Any, out: Any) -> None:
    for i in range(values.shape[0]):
        out[i] = rounded(values[i], out[i])


def _randn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_exponential_is_accurate_over_its_range() -> None:
    """The error grows with |x| as float32 rounding of the argument does."""
    values = np.linspace(-80, 80, 20001, dtype=np.float32)
    out = np.empty_like(values)
    njit(_exp_all)(values, out)
    relative = np.abs(out / np.exp(values.astype(np.float64)) - 1)
    assert (relative < 3e-7 + 1e-7 * np.abs(values)).all()


def test_exponential_keeps_nan_and_stays_finite() -> None:
    """Nothing overflows, and a broken row stays visible."""
    out = np.empty(4, np.float32)
    njit(_exp_all)(np.array([np.nan, -np.inf, -1e30, 1e30], np.float32), out)
    assert np.isnan(out[0])
    assert (out[1:3] < 1e-37).all()
    assert np.isfinite(out[3])


def test_every_bfloat16_survives_a_round_trip() -> None:
    """All 65,536 patterns: finite ones and infinities exactly, NaN as some NaN."""
    bits = np.arange(2**16, dtype=np.uint16)
    out = np.empty_like(bits)
    njit(_round_trip)(bits, out)
    values = torch.from_numpy(bits.astype(np.int16)).view(torch.bfloat16)
    result = torch.from_numpy(out.astype(np.int16)).view(torch.bfloat16)
    assert torch.equal(values.isnan(), result.isnan())
    assert torch.equal(values[~values.isnan()], result[~values.isnan()])


def test_rounding_to_bfloat16_is_that_of_torch() -> None:
    """To nearest, ties to even, NaN to NaN."""
    values = torch.cat([_randn(5000, dtype=torch.float32), torch.tensor([1.00390625, 1.01171875, 3.4e38, -0.0])])
    out = np.empty(values.shape[0], np.uint16)
    njit(_round_all)(values.numpy(), out)
    assert np.array_equal(out, as_array(values.bfloat16()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [layer_cpu.add_rms_norm, layer_cpu.add_rms_norm_serial])
def test_add_rms_norm_equals_torch(kernel: Any, dtype: torch.dtype) -> None:
    """The residual takes the sum in float32, the output is its norm in the model's type."""
    residual, x = _randn(NUM_TOKENS, 48, dtype=torch.float32), _randn(NUM_TOKENS, 48, dtype=dtype, seed=1)
    weight = _randn(48, dtype=torch.float32, seed=2)
    expected_sum = residual + x.float()
    expected = functional.rms_norm(expected_sum, (48,), weight, 1e-6)
    out = torch.empty_like(x)
    kernel(residual.numpy(), as_array(x), weight.numpy(), 1e-6, as_array(out))
    assert torch.allclose(residual, expected_sum)
    assert torch.allclose(out.float(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [layer_cpu.silu_mul, layer_cpu.silu_mul_serial])
def test_silu_mul_equals_torch(kernel: Any, dtype: torch.dtype) -> None:
    """Gate first, up second, also where the gate is far from zero."""
    gate_up = _randn(NUM_TOKENS, 70, dtype=torch.float32) * 20
    gate_up = gate_up.to(dtype)
    out = torch.empty(NUM_TOKENS, 35, dtype=dtype)
    kernel(as_array(gate_up), as_array(out))
    expected = functional.silu(gate_up[:, :35].float()) * gate_up[:, 35:].float()
    assert torch.allclose(out.float(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def _rope_reference(head: torch.Tensor, norm: torch.Tensor | None, cos: torch.Tensor, sin: torch.Tensor) -> Any:
    """One head `[T, dim]` as transformers rotates it."""
    x = head.float() if norm is None else functional.rms_norm(head.float(), (head.shape[1],), norm, 1e-6)
    a, b = x.chunk(2, dim=1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("kernel", [layer_cpu.rope_write, layer_cpu.rope_write_serial])
def test_rope_write_rotates_and_stores(kernel: Any, has_norm: bool, dtype: torch.dtype) -> None:
    """q is returned; k rotated and v unchanged lie in their slots, whatever the order of the blocks."""
    num_heads, num_kv_heads, dim, block_size = 4, 2, 8, 4
    qkv = _randn(NUM_TOKENS, (num_heads + 2 * num_kv_heads) * dim, dtype=dtype)
    angles = _randn(64, dim // 2, dtype=torch.float32, seed=3)
    cos, sin = angles.cos(), angles.sin()
    positions = torch.arange(NUM_TOKENS) + 5
    blocks = torch.randperm(32, generator=torch.Generator().manual_seed(4))[: NUM_TOKENS // block_size + 1]
    block_of = blocks[torch.arange(NUM_TOKENS) // block_size].to(torch.int32)
    offset_of = (torch.arange(NUM_TOKENS) % block_size).to(torch.int32)
    norm = _randn(dim, dtype=torch.float32, seed=5) if has_norm else None
    norm_array = np.zeros(0, np.float32) if norm is None else norm.numpy()
    k = torch.zeros(32, num_kv_heads, block_size, dim, dtype=dtype)
    v, q = torch.zeros_like(k), torch.zeros(NUM_TOKENS, num_heads, dim, dtype=dtype)
    kernel(
        as_array(qkv),
        (cos.numpy(), sin.numpy(), positions.numpy()),
        (norm_array, norm_array, 1e-6),
        (block_of.numpy(), offset_of.numpy()),
        as_array(k),
        as_array(v),
        as_array(q),
    )
    heads = qkv.view(NUM_TOKENS, -1, dim)
    rotated = [_rope_reference(heads[:, h], norm, cos[positions], sin[positions]) for h in range(6)]
    stored_k = k[block_of.long(), :, offset_of.long()]
    tolerance = TOLERANCE[dtype]
    assert torch.allclose(q.float(), torch.stack(rotated[:4], dim=1), rtol=tolerance, atol=tolerance)
    assert torch.allclose(stored_k.float(), torch.stack(rotated[4:], dim=1), rtol=tolerance, atol=tolerance)
    assert torch.equal(v[block_of.long(), :, offset_of.long()], heads[:, 6:])
