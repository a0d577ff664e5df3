"""Packed products give what plain ones give, and replace them without a trace."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from batching.packed_linear import Linear, can_pack, pack_linears

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 7, 64])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("is_packed", [False, True])
@torch.inference_mode()
def test_product_equals_functional_linear(dtype: torch.dtype, num_rows: int, has_bias: bool, is_packed: bool) -> None:
    """For any number of rows, whatever number the weight was packed for."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 48, generator=generator).to(dtype)
    weight = torch.randn(80, 48, generator=generator).to(dtype)
    bias = torch.randn(80, generator=generator).to(dtype) if has_bias else None
    product = Linear(weight, bias, is_packed=is_packed and can_pack(dtype, CPU))(x)
    tolerance = 1e-4 if dtype is torch.float32 else 5e-2
    assert torch.allclose(product.float(), functional.linear(x, weight, bias).float(), rtol=tolerance, atol=tolerance)


def test_a_device_without_packing_is_told_apart() -> None:
    """Only CPUs pack."""
    assert not can_pack(torch.float32, torch.device("meta"))


@torch.inference_mode()
def test_linears_of_a_model_are_replaced_where_they_stand() -> None:
    """The model's output stays; its plain weights are gone."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8, bias=False))
    x = torch.randn(2, 3, 16)
    expected = model(x)
    assert pack_linears(model) == 2
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert list(model.parameters()) == []
