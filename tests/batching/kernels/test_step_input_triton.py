"""The step input on the device is the one that the host would have built, in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batching.kernels import step_input_torch
from batching.kernels.paged_attention_config import num_parts_of
from batching.row_tables import NUM_TOKENS
from batching.step_input import StepInput
from tests.batching.kernels import step_input_cases
from tests.batching.kernels.step_input_cases import BLOCK_SIZE, PLAN_CASES, SHAPE, TRASH_BLOCK, PlanCase

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import step_input_triton

pytestmark = pytest.mark.usefixtures("interpreter")

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", PLAN_CASES, ids=str)
def test_kernel_and_reference_build_the_same_inputs(case: PlanCase) -> None:
    planned = step_input_cases.make_planned(case, CPU)
    tables, wanted_tables = step_input_cases.make_tables(CPU, case.shape), step_input_cases.make_tables(CPU, case.shape)
    inputs, wanted = step_input_cases.make_inputs(case, CPU), step_input_cases.make_inputs(case, CPU)

    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)
    step_input_torch.apply_differences(wanted_tables, planned.packed)
    step_input_torch.build_inputs(wanted_tables, planned.plan, wanted)

    assert torch.equal(tables.arena, wanted_tables.arena)
    assert step_input_cases.as_lists(inputs) == step_input_cases.as_lists(wanted)


@pytest.mark.parametrize("case", PLAN_CASES, ids=str)
def test_inputs_are_those_that_the_host_builds_from_the_scheduler(case: PlanCase) -> None:
    planned = step_input_cases.make_planned(case, CPU)
    tables, inputs = step_input_cases.make_tables(CPU, case.shape), step_input_cases.make_inputs(case, CPU)
    host = StepInput(planned.scheduled, BLOCK_SIZE)
    used, num_rows = host.num_tokens, len(planned.rows)

    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)

    assert inputs.ids[:used].tolist() == host.ids.tolist()
    assert inputs.positions[:used].tolist() == host.positions.tolist()
    assert inputs.slots[:used].tolist() == (host.block_of * BLOCK_SIZE + host.offset_of).tolist()
    assert inputs.context_lens[:num_rows].tolist() == [row.context_len for row in planned.scheduled.sequences]
    lens = np.diff(inputs.query_starts.numpy())
    parts = num_parts_of(lens, inputs.context_lens.numpy())
    assert inputs.part_starts.tolist() == (parts.cumsum() - parts).tolist()
    assert inputs.logit_tokens[:num_rows].tolist() == host.logit_rows
    assert inputs.logit_plan[:num_rows].tolist() == host.sample_index + host.checked_index
    assert inputs.num_sampling.tolist() == [len(host.sampling)]
    assert set((inputs.slots[used:] // BLOCK_SIZE).tolist()) <= {TRASH_BLOCK}
    assert inputs.ids[used:].tolist() == inputs.positions[used:].tolist() == [0] * (case.num_tokens - used)


@pytest.mark.parametrize("case", PLAN_CASES, ids=str)
def test_sampled_tokens_are_appended_as_the_reference_does(case: PlanCase) -> None:
    planned = step_input_cases.make_planned(case, CPU)
    tables, wanted_tables = step_input_cases.make_tables(CPU, case.shape), step_input_cases.make_tables(CPU, case.shape)
    inputs = step_input_cases.make_inputs(case, CPU)
    sampled = torch.arange(case.num_rows, dtype=torch.int32) + 500
    step_input_torch.apply_differences(tables, planned.packed)
    step_input_torch.apply_differences(wanted_tables, planned.packed)
    step_input_torch.build_inputs(tables, planned.plan, inputs)

    step_input_triton.commit_tokens(tables, planned.plan, inputs, sampled)
    step_input_torch.commit_tokens(wanted_tables, planned.plan, inputs, sampled)

    assert torch.equal(tables.arena, wanted_tables.arena)


def test_the_next_step_computes_the_sampled_token() -> None:
    case = PlanCase(4, (), 4, 4)
    planned = step_input_cases.make_planned(case, CPU)
    tables, inputs = step_input_cases.make_tables(CPU, case.shape), step_input_cases.make_inputs(case, CPU)
    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)
    before = inputs.positions.tolist()
    step_input_triton.commit_tokens(tables, planned.plan, inputs, torch.tensor([9, 8, 7, 6], dtype=torch.int32))

    step_input_triton.build_inputs(tables, planned.plan, inputs)

    assert inputs.ids.tolist() == [9, 8, 7, 6]
    assert inputs.positions.tolist() == [position + 1 for position in before]
    assert inputs.num_sampling.tolist() == [4]


def test_a_full_row_takes_no_further_token() -> None:
    case = PlanCase(1, (), 1, 1)
    planned = step_input_cases.make_planned(case, CPU)
    tables, inputs = step_input_cases.make_tables(CPU, case.shape), step_input_cases.make_inputs(case, CPU)
    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)
    row = planned.rows[0]
    tables.records[row, NUM_TOKENS] = SHAPE.max_len
    others = tables.tokens.clone()

    step_input_triton.commit_tokens(tables, planned.plan, inputs, torch.tensor([9], dtype=torch.int32))

    assert torch.equal(tables.tokens, others)
    assert tables.records[row, NUM_TOKENS] == SHAPE.max_len


def test_a_difference_of_several_tiles_reaches_every_word() -> None:
    tables = step_input_cases.make_tables(CPU)
    packed = torch.full((2, 2500), -1, dtype=torch.int32)
    words = torch.randperm(SHAPE.num_words, generator=torch.Generator().manual_seed(0))[:300].int()
    packed[0, 2100:2400], packed[1, 2100:2400] = words, torch.arange(300, dtype=torch.int32)

    step_input_triton.apply_differences(tables, packed)

    assert tables.arena[words.long()].tolist() == list(range(300))
    assert (tables.arena == -5).sum() == SHAPE.num_words - 300


def test_plan_of_another_size_is_refused() -> None:
    case = PlanCase(1, (), 1, 1)
    with pytest.raises(ValueError, match="plan has shape"):
        step_input_triton.build_inputs(
            step_input_cases.make_tables(CPU, case.shape),
            torch.zeros(2, 2, dtype=torch.int32),
            step_input_cases.make_inputs(case, CPU),
        )
