"""A step's inputs from the rows of batching.row_tables, all on the device (Triton).

Three launches a step, whose grids depend on the bucket sizes alone: `apply_differences` before the step, `build_inputs`
once the plan is there, `commit_tokens` after sampling. The references stand in step_input_torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batching import row_tables
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, SPLIT_TOKENS
from batching.kernels.step_input_torch import StepInputs, check_plan
from batching.kernels.triton_support import check_rows, next_power_of_two
from batching.row_tables import RowTables

TILE = 1024
TOKEN_TILE = 32

_RECORD_WORDS = tl.constexpr(row_tables.RECORD_WORDS)
_NUM_TOKENS = tl.constexpr(row_tables.NUM_TOKENS)
_NUM_COMPUTED = tl.constexpr(row_tables.NUM_COMPUTED)
_SPLIT_TOKENS = tl.constexpr(SPLIT_TOKENS)
_MAX_SHORT_QUERIES = tl.constexpr(MAX_SHORT_QUERIES)


def apply_differences(tables: RowTables, packed: torch.Tensor) -> None:
    """Write each value to its word; packed `[2, capacity] int32` from Differences.packed, on the device."""
    check_rows("packed", packed, (2, None))
    capacity = packed.shape[1]
    if capacity:
        _apply_kernel[(triton.cdiv(capacity, TILE),)](tables.arena, packed, capacity, tile=TILE, num_warps=4)


def build_inputs(tables: RowTables, plan: torch.Tensor, inputs: StepInputs) -> None:
    """Fill `inputs` for a plan `[2, R] int32` on the device: row, and how many tokens it computes (0: padding).

    The rows' records say where each starts; tokens that pad the step go to the trash block. ValueError for a plan of
    another size than the inputs.
    """
    check_plan(plan, inputs)
    num_rows, num_tokens = inputs.context_lens.shape[0], inputs.ids.shape[0]
    _build_kernel[(max(1, triton.cdiv(num_tokens, TOKEN_TILE)),)](
        tables.records,
        tables.tokens,
        tables.blocks,
        plan,
        inputs.ids,
        inputs.positions,
        inputs.slots,
        inputs.query_starts,
        inputs.context_lens,
        inputs.part_starts,
        inputs.logit_tokens,
        inputs.logit_rows,
        inputs.logit_plan,
        inputs.num_sampling,
        num_rows,
        num_tokens,
        inputs.trash_block,
        max_len=tables.shape.max_len,
        max_blocks=tables.shape.max_blocks,
        block_size=inputs.block_size,
        row_tile=next_power_of_two(num_rows),
        token_tile=TOKEN_TILE,
        num_warps=4,
    )


def commit_tokens(tables: RowTables, plan: torch.Tensor, inputs: StepInputs, sampled: torch.Tensor) -> None:
    """Append each sampled token to its row and count what was computed; sampled `[R] int32`, as logit_rows is."""
    check_plan(plan, inputs)
    check_rows("sampled", sampled, tuple(inputs.logit_rows.shape))
    num_rows = inputs.context_lens.shape[0]
    _commit_kernel[(1,)](
        tables.records,
        tables.tokens,
        plan,
        inputs.logit_rows,
        inputs.num_sampling,
        sampled,
        num_rows,
        max_len=tables.shape.max_len,
        row_tile=next_power_of_two(num_rows),
        num_warps=4,
    )


@triton.jit
def _apply_kernel(arena_ptr, packed_ptr, capacity, tile: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * tile + tl.arange(0, tile)
    is_inside = index < capacity
    word = tl.load(packed_ptr + index, mask=is_inside, other=-1)
    value = tl.load(packed_ptr + capacity + index, mask=is_inside, other=0)
    tl.store(arena_ptr + word, value, mask=word >= 0)


@triton.jit
def _build_kernel(  # type: ignore[no-untyped-def]
    records_ptr,
    tokens_ptr,
    blocks_ptr,
    plan_ptr,
    ids_ptr,
    positions_ptr,
    slots_ptr,
    query_starts_ptr,
    context_lens_ptr,
    part_starts_ptr,
    logit_tokens_ptr,
    logit_rows_ptr,
    logit_plan_ptr,
    num_sampling_ptr,
    num_rows,
    num_tokens,
    trash_block,
    max_len: tl.constexpr,
    max_blocks: tl.constexpr,
    block_size: tl.constexpr,
    row_tile: tl.constexpr,
    token_tile: tl.constexpr,
):
    """Every program reads the whole plan (some hundred numbers), finds the rows of its tokens, and writes these.

    The first one also writes what there is one of for each row.
    """
    index = tl.arange(0, row_tile)
    is_row = index < num_rows
    row = tl.load(plan_ptr + index, mask=is_row, other=0)
    count = tl.load(plan_ptr + num_rows + index, mask=is_row, other=0)
    ends = tl.cumsum(count, axis=0)
    starts = ends - count
    total = tl.sum(count, axis=0)
    if tl.program_id(0) == 0:
        record_ptr = records_ptr + row.to(tl.int64) * _RECORD_WORDS
        is_used = is_row & (count > 0)
        computed = tl.load(record_ptr + _NUM_COMPUTED, mask=is_used, other=0)
        known = tl.load(record_ptr + _NUM_TOKENS, mask=is_used, other=0)
        context_len = tl.where(is_used, computed + count, 0)
        tl.store(query_starts_ptr + index, starts, mask=is_row)
        tl.store(query_starts_ptr + num_rows, total)
        tl.store(context_lens_ptr + index, context_len, mask=is_row)
        # As paged_attention_config.num_parts_of counts them.
        num_splits = (context_len + _SPLIT_TOKENS - 1) // _SPLIT_TOKENS
        num_parts = tl.where((count <= _MAX_SHORT_QUERIES) & (num_splits > 1), count * num_splits, 0)
        tl.store(part_starts_ptr + index, tl.cumsum(num_parts, axis=0) - num_parts, mask=is_row)
        # First the rows that sample, then those that only have their numbers checked, then the padding.
        samples = (is_used & (context_len == known)).to(tl.int32)
        checks = (is_used & (context_len != known)).to(tl.int32)
        padding = (is_row & (count == 0)).to(tl.int32)
        num_sampling = tl.sum(samples, axis=0)
        num_used = num_sampling + tl.sum(checks, axis=0)
        place = tl.where(
            samples == 1,
            tl.cumsum(samples, axis=0) - 1,
            tl.where(
                checks == 1, num_sampling + tl.cumsum(checks, axis=0) - 1, num_used + tl.cumsum(padding, axis=0) - 1
            ),
        )
        tl.store(logit_tokens_ptr + place, tl.where(is_used, ends - 1, 0), mask=is_row)
        tl.store(logit_rows_ptr + place, tl.where(is_used, row, -1), mask=is_row)
        tl.store(logit_plan_ptr + place, tl.where(is_used, index, -1), mask=is_row)
        tl.store(num_sampling_ptr, num_sampling)
    token = tl.program_id(0) * token_tile + tl.arange(0, token_tile)
    is_token = token < num_tokens
    is_used_token = token < total
    # The row of a token is the one row whose range holds it.
    holds = (starts[None, :] <= token[:, None]) & (token[:, None] < ends[None, :])
    token_row = tl.sum(tl.where(holds, row[None, :], 0), axis=1).to(tl.int64)
    offset = token - tl.sum(tl.where(holds, starts[None, :], 0), axis=1)
    first = tl.load(records_ptr + token_row * _RECORD_WORDS + _NUM_COMPUTED, mask=is_used_token, other=0)
    position = tl.where(is_used_token, first + offset, 0)
    token_id = tl.load(tokens_ptr + token_row * max_len + position, mask=is_used_token, other=0)
    block = tl.load(blocks_ptr + token_row * max_blocks + position // block_size, mask=is_used_token, other=trash_block)
    within = tl.where(is_used_token, position, token) % block_size
    tl.store(ids_ptr + token, token_id.to(tl.int64), mask=is_token)
    tl.store(positions_ptr + token, position.to(tl.int64), mask=is_token)
    tl.store(slots_ptr + token, block * block_size + within, mask=is_token)


@triton.jit
def _commit_kernel(  # type: ignore[no-untyped-def]
    records_ptr,
    tokens_ptr,
    plan_ptr,
    logit_rows_ptr,
    num_sampling_ptr,
    sampled_ptr,
    num_rows,
    max_len: tl.constexpr,
    row_tile: tl.constexpr,
):
    index = tl.arange(0, row_tile)
    is_row = index < num_rows
    row = tl.load(plan_ptr + index, mask=is_row, other=0).to(tl.int64)
    count = tl.load(plan_ptr + num_rows + index, mask=is_row, other=0)
    is_used = is_row & (count > 0)
    computed_ptr = records_ptr + row * _RECORD_WORDS + _NUM_COMPUTED
    computed = tl.load(computed_ptr, mask=is_used, other=0)
    tl.store(computed_ptr, computed + count, mask=is_used)
    is_sampling = is_row & (index < tl.load(num_sampling_ptr))
    target = tl.load(logit_rows_ptr + index, mask=is_sampling, other=0).to(tl.int64)
    token_id = tl.load(sampled_ptr + index, mask=is_sampling, other=0)
    known_ptr = records_ptr + target * _RECORD_WORDS + _NUM_TOKENS
    known = tl.load(known_ptr, mask=is_sampling, other=0)
    has_room = is_sampling & (known < max_len)
    tl.store(tokens_ptr + target * max_len + known, token_id, mask=has_room)
    tl.store(known_ptr, known + 1, mask=has_room)
