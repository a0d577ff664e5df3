"""The same tables as in the interpreter on a real device: TRITON_INTERPRET=0 pytest tests/batching/kernels -m gpu."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import step_input_torch, step_input_triton
from tests.batching.kernels import layer_cases, sampler_tables, step_input_cases
from tests.batching.kernels.layer_cases import ActivationCase, NormCase, RopeCase
from tests.batching.kernels.sampler_tables import SamplerCase
from tests.batching.kernels.step_input_cases import PlanCase

pytestmark = pytest.mark.gpu
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
    tables, wanted_tables = step_input_cases.make_tables(GPU), step_input_cases.make_tables(GPU)
    inputs, wanted = step_input_cases.make_inputs(case, GPU), step_input_cases.make_inputs(case, GPU)
    sampled = torch.arange(case.num_rows, dtype=torch.int32, device=GPU)
    for kernels, its_tables, its_inputs in (
        (step_input_triton, tables, inputs),
        (step_input_torch, wanted_tables, wanted),
    ):
        kernels.apply_differences(its_tables, planned.packed)
        kernels.build_inputs(its_tables, planned.plan, its_inputs)
        kernels.commit_tokens(its_tables, planned.plan, its_inputs, sampled)

    assert torch.equal(tables.arena, wanted_tables.arena)
    assert step_input_cases.as_lists(inputs) == step_input_cases.as_lists(wanted)


@pytest.mark.parametrize("case", [*sampler_tables.CASES, *sampler_tables.SLOW_CASES], ids=str)
def test_tokens_chosen_on_the_device_are_those_of_the_reference(case: SamplerCase) -> None:
    buffers = sampler_tables.run_kernels(case, GPU)

    assert sampler_tables.chosen_by_kernels(buffers, case) == sampler_tables.chosen_by_reference(case)
    found = sampler_tables.logprobs_of_kernels(buffers, case)
    wanted = [token.logprob for token in sampler_tables.reference_tokens(case)]
    assert case.has_masks or sampler_tables.ids_of(found) == sampler_tables.ids_of(wanted)
