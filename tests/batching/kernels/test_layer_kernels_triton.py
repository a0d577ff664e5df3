"""The kernels between the products of a layer compute what torch computes, in Triton's interpreter.

A product of rounded numbers is exact in float32, so only the order of sums, exp and erf can differ: a unit or two in
float32, in which the sums are taken, and one in the narrower dtypes where that falls on the other side of a rounding.
"""

from __future__ import annotations

import pytest
import torch

from batching.kernels import fused_torch
from batching.kernels.fused_torch import HeadLayout, NormKind

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import gated_activation_triton, rms_norm_triton, rope_kv_write_triton
from tests.batching.kernels import layer_cases
from tests.batching.kernels.layer_cases import ActivationCase, NormCase, RopeCase

pytestmark = pytest.mark.usefixtures("interpreter")

CPU = torch.device("cpu")
UNITS = {torch.float32: 8.0, torch.float16: 1.0, torch.bfloat16: 1.0}


@pytest.mark.parametrize("case", layer_cases.NORM_CASES, ids=str)
def test_norm_is_the_reference(case: NormCase) -> None:
    assert layer_cases.check_norm(case, CPU) <= UNITS[case.dtype]


@pytest.mark.parametrize("case", layer_cases.ACTIVATION_CASES, ids=str)
def test_activation_is_the_reference(case: ActivationCase) -> None:
    assert layer_cases.check_activation(case, CPU) <= UNITS[case.dtype]


@pytest.mark.parametrize("case", layer_cases.ROPE_CASES, ids=str)
def test_rotated_heads_and_cache_are_the_reference(case: RopeCase) -> None:
    assert layer_cases.check_rope(case, CPU) <= UNITS[case.dtype]


def test_norm_without_a_residual_leaves_its_input_alone() -> None:
    x = layer_cases.drawn(3, 32, dtype=torch.float32, device=CPU)
    before = x.clone()

    rms_norm_triton.add_rms_norm(x, None, torch.ones(32), NormKind(eps=1e-6), torch.empty_like(x))

    assert torch.equal(x, before)


def test_norm_may_write_over_its_input() -> None:
    x = layer_cases.drawn(3, 32, dtype=torch.float32, device=CPU)
    wanted, _ = fused_torch.add_rms_norm(x, None, torch.ones(32), NormKind(eps=1e-6))

    rms_norm_triton.add_rms_norm(x, None, torch.ones(32), NormKind(eps=1e-6), x)

    assert layer_cases.units_apart(x, wanted) <= 8


def test_broken_numbers_stay_in_their_row() -> None:
    x = layer_cases.drawn(3, 32, dtype=torch.float32, device=CPU)
    x[1, 5] = float("nan")
    out = torch.empty_like(x)

    rms_norm_triton.add_rms_norm(x, x.clone(), torch.ones(32), NormKind(eps=1e-6), out)

    assert out.isnan().all(dim=1).tolist() == [False, True, False]


def test_a_broken_key_is_broken_in_a_float8_cache_and_a_large_one_is_the_largest() -> None:
    layout = HeadLayout(num_heads=1, num_kv_heads=1, k_dim=2, v_dim=2)
    qkv = torch.tensor([[0.0, 0.0, float("nan"), 1e9, float("inf"), -1e9]])
    rope = torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    cache = torch.zeros(1, 1, 1, 2).to(torch.float8_e4m3fn), torch.zeros(1, 1, 1, 2).to(torch.float8_e4m3fn)
    slots = torch.zeros(1, dtype=torch.int32)

    rope_kv_write_triton.rope_kv_write(qkv, layout, rope, slots, cache, torch.empty(1, 1, 2), None, torch.ones(2))

    assert cache[0].float().isnan().flatten().tolist() == [True, True]
    assert cache[1].float().flatten().tolist() == [448.0, -448.0]


@pytest.mark.parametrize("value", [0.0, 1.0625, 1.1875, 15.5, 0.0146, 0.001, 0.0009765625, 447.9, 448.0, 1e6, -3.3])
def test_float8_is_rounded_to_nearest_even(value: float) -> None:
    layout = HeadLayout(num_heads=1, num_kv_heads=1, k_dim=2, v_dim=1)
    qkv = torch.tensor([[0.0, 0.0, 0.0, 0.0, value]])
    rope = torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    cache = torch.zeros(1, 1, 1, 2).to(torch.float8_e4m3fn), torch.zeros(1, 1, 1, 1).to(torch.float8_e4m3fn)
    slots = torch.zeros(1, dtype=torch.int32)

    rope_kv_write_triton.rope_kv_write(qkv, layout, rope, slots, cache, torch.empty(1, 1, 2), None, torch.ones(2))

    assert cache[1].float().item() == torch.tensor(value).clamp(-448, 448).to(torch.float8_e4m3fn).float().item()


def test_wrong_shapes_are_refused_by_name() -> None:
    x = torch.zeros(3, 32)
    with pytest.raises(ValueError, match="weight has shape"):
        rms_norm_triton.add_rms_norm(x, None, torch.ones(31), NormKind(eps=1e-6), x)
    with pytest.raises(ValueError, match="gate_up has shape"):
        gated_activation_triton.gated_activation(x, "silu", torch.zeros(3, 15))
    with pytest.raises(ValueError, match="expected 'silu'"):
        gated_activation_triton.gated_activation(x, "relu", torch.zeros(3, 16))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out is not contiguous"):
        gated_activation_triton.gated_activation(x, "silu", torch.zeros(16, 3).T)
    with pytest.raises(ValueError, match="at most 65536"):
        rms_norm_triton.add_rms_norm(
            torch.zeros(1, 65537), None, torch.ones(65537), NormKind(eps=1e-6), torch.zeros(1, 65537)
        )


def test_scales_belong_to_a_float8_cache_alone() -> None:
    layout = HeadLayout(num_heads=1, num_kv_heads=1, k_dim=2, v_dim=2)
    rope = torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    cache = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    slots = torch.zeros(1, dtype=torch.int32)

    with pytest.raises(ValueError, match="float8_e4m3fn needs them"):
        rope_kv_write_triton.rope_kv_write(
            torch.zeros(1, 6), layout, rope, slots, cache, torch.empty(1, 1, 2), None, torch.ones(2)
        )
