"""Attention over device rows: kernels and torch agree, with the bounds of the plan and with those of its bucket."""

from __future__ import annotations

import random

import pytest
import torch

from batching.attention.reference import AttentionVariant
from batching.attention_bounds import AttentionBounds, bounds_of
from batching.device_ops import DeviceOps, DeviceStep, TorchOps
from batching.kernels.step_input_torch import StepInputs
from batching.kv_cache import LayerCache, LayerShape
from batching.row_book import RowBook, packed_writes
from batching.row_tables import RowShape, RowTables
from batching.step import ScheduledSequence, SchedulerOutput
from batching.step_buckets import StepSize, choose_bucket
from contracts.sampling import SamplingParams
from tests.batching.kernels.triton_child import WITHOUT_TRITON, Run, has_triton

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)

CPU = torch.device("cpu")
BLOCK_SIZE = 16
NUM_BLOCKS = 250
MAX_LEN = 1600
PLANS: dict[str, list[tuple[int, int]]] = {
    "one context": [(700, 1)],
    "decodes": [(30, 1), (1400, 1), (511, 1), (512, 1)],
    "decodes and chunks": [(600, 1), (1030, 5), (3, 20), (9, 1)],
}
"""(start, tokens) of each sequence."""
VARIANTS = {
    "plain": AttentionVariant(scaling=0.3),
    "window": AttentionVariant(scaling=0.3, sliding_window=100),
}


def sequence(draw: random.Random, seq_id: int, start: int, num_tokens: int) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=seq_id,
        token_ids=[5] * num_tokens,
        start=start,
        block_ids=draw.sample(range(NUM_BLOCKS), -(-(start + num_tokens) // BLOCK_SIZE)),
        is_sampling=True,
        sampling=SamplingParams(),
        seed=0,
        num_output_tokens=0,
    )


def device_step(plan_name: str, ops: DeviceOps) -> tuple[DeviceStep, AttentionBounds]:
    """A padded step as the runner makes it, with the bounds of its plan, and the bounds of its bucket."""
    draw = random.Random(0)
    rows = [sequence(draw, index, *lens) for index, lens in enumerate(PLANS[plan_name])]
    num_tokens = sum(len(row.token_ids) for row in rows)
    shape = RowShape(num_rows=8, max_len=MAX_LEN, max_blocks=MAX_LEN // BLOCK_SIZE, max_edits=0)
    book, tables = RowBook(shape, BLOCK_SIZE, frozenset()), RowTables(shape, CPU)
    row_plan = book.begin(SchedulerOutput(step_id=0, sequences=rows, num_tokens=num_tokens, num_decodes=0))
    own = bounds_of(row_plan)
    size = StepSize(
        num_tokens=num_tokens, num_rows=len(rows), max_context_len=own.max_context_len, num_parts=own.num_parts
    )
    bucket = choose_bucket(size, 8, MAX_LEN)
    inputs = StepInputs(bucket.num_tokens, bucket.num_rows, block_size=BLOCK_SIZE, trash_block=NUM_BLOCKS, device=CPU)
    plan = torch.zeros(2, bucket.num_rows, dtype=torch.int32)
    plan[:, : len(rows)] = torch.tensor([row_plan.rows, row_plan.counts])
    ops.apply_differences(tables, torch.from_numpy(packed_writes(row_plan.writes)))
    ops.build_inputs(tables, plan, inputs)
    step = DeviceStep(inputs=inputs, block_tables=tables.blocks[plan[0].long()], bounds=own)
    return step, bucket.bounds(MAX_LEN)


def attended(plan_name: str, variant: AttentionVariant, *, is_triton: bool, is_bucket: bool) -> torch.Tensor:
    ops: DeviceOps = TorchOps()
    if is_triton:
        from batching.device_ops_triton import TritonOps

        ops = TritonOps()
    step, bucket_bounds = device_step(plan_name, ops)
    bounds = bucket_bounds if is_bucket else step.bounds
    generator = torch.Generator().manual_seed(1)
    cache = LayerCache(LayerShape(num_kv_heads=2, k_dim=16, v_dim=16), NUM_BLOCKS + 1, BLOCK_SIZE, torch.empty(0))
    cache.k.normal_(generator=generator)
    cache.v.normal_(generator=generator)
    q = torch.randn(4, step.inputs.ids.shape[0], 16, generator=generator)
    step = DeviceStep(inputs=step.inputs, block_tables=step.block_tables, bounds=bounds)
    return ops.attend(q, cache, step, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("is_bucket", [False, True], ids=["own bounds", "bounds of the bucket"])
def test_split_contexts_are_added_up_from_the_starts_on_the_device(
    plan_name: str, variant: str, is_bucket: bool, interpret: Run
) -> None:
    found = interpret(attended, plan_name, VARIANTS[variant], is_triton=True, is_bucket=is_bucket)
    expected = attended(plan_name, VARIANTS[variant], is_triton=False, is_bucket=is_bucket)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
