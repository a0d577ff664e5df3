"""The same tables as in the interpreter, on a CUDA device: pytest tests/batching/kernels -m gpu."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import step_input_torch, step_input_triton
from tests.batching.kernels import layer_cases, sampler_tables, step_input_cases
from tests.batching.kernels.layer_cases import ActivationCase, NormCase, RopeCase
from tests.batching.kernels.sampler_tables import SamplerCase
from tests.batching.kernels.step_input_cases import PlanCase

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device_kernels")]
GPU = torch.device("cuda")
UNITS = {torch.float32: 16.0, torch.float16: 1.0, torch.bfloat16: 1.0}


@pytest.mark.parametrize("case", layer_cases.NORM_CASES, ids=str)
def test_norm_on_the_device_is_the_reference(case: NormCase) -> None:
    assert layer_cases.check_norm(case, GPU) <= UNITS[case.dtype]


@pytest.mark.parametrize("case", layer_cases.ACTIVATION_CASES, ids=str)
def test_activation_on_the_device_is_the_reference(case: ActivationCase) -> None:
    assert layer_cases.check_activation(case, GPU) <= UNITS[case.dtype]


@pytest.mark.parametrize("case", layer_cases.ROPE_CASES, ids=str)
def test_rotated_heads_and_cache_on_the_device_are_the_reference(case: RopeCase) -> None:
    assert layer_cases.check_rope(case, GPU) <= UNITS[case.dtype]


@pytest.mark.parametrize("case", step_input_cases.PLAN_CASES, ids=str)
def test_step_input_on_the_device_is_the_reference(case: PlanCase) -> None:
    planned = step_input_cases.make_planned(case, GPU)
    tables, wanted_tables = step_input_cases.make_tables(GPU, case.shape), step_input_cases.make_tables(GPU, case.shape)
    inputs, wanted = step_input_cases.make_inputs(case, GPU), step_input_cases.make_inputs(case, GPU)
    sampled = torch.arange(case.num_rows, dtype=torch.int32, device=GPU)
    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)
    step_input_triton.commit_tokens(tables, planned.plan, inputs, sampled)
    step_input_torch.apply_differences(wanted_tables, planned.packed)
    step_input_torch.build_inputs(wanted_tables, planned.plan, wanted)
    step_input_torch.commit_tokens(wanted_tables, planned.plan, wanted, sampled)

    assert torch.equal(tables.arena, wanted_tables.arena)
    assert step_input_cases.as_lists(inputs) == step_input_cases.as_lists(wanted)


@pytest.mark.parametrize("case", [*sampler_tables.CASES, *sampler_tables.SLOW_CASES], ids=str)
def test_tokens_chosen_on_the_device_are_those_of_the_reference(case: SamplerCase) -> None:
    buffers = sampler_tables.run_kernels(case, GPU)

    assert sampler_tables.chosen_by_kernels(buffers, case) == sampler_tables.chosen_by_reference(case)
    found, wanted = sampler_tables.logprobs_of_kernels(buffers, case), sampler_tables.reference_logprobs(buffers, case)
    assert sampler_tables.ids_of(found) == sampler_tables.ids_of(wanted)
    assert sampler_tables.numbers_of(found) == pytest.approx(sampler_tables.numbers_of(wanted), abs=3e-5)
