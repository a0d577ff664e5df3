"""A step's inputs from the rows of batching.row_tables in plain torch: the reference of step_input_triton."""

from __future__ import annotations

import torch

from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, SPLIT_TOKENS
from batching.kernels.triton_support import check_rows
from batching.row_tables import NUM_COMPUTED, NUM_TOKENS, RowTables


class StepInputs:
    """The tensors of one bucket, filled again for every step. Owner: the runner thread.

    T tokens, packed in the order of the plan: ids, positions `[T] int64`; slots `[T] int32`, block * block_size +
    offset. Tokens that pad the step have id 0, position 0 and a slot in the trash block, which must exist in the cache
    and belong to nobody.

    R rows: query_starts `[R + 1] int32`, the first token of each row and their number; context_lens `[R] int32`, with
    the tokens of this step, 0 for rows that pad; part_starts `[R] int32`, where the parts of a row begin that split
    attention leaves to its reduction (paged_attention_config.num_parts_of).

    For the rows of logits, first those that sample, then those whose numbers are only checked, then padding:
    logit_tokens `[R] int32` the token whose logits they are (0 for padding), logit_rows and logit_plan `[R] int32`
    their row and their place in the plan (-1 for padding); num_sampling `[1] int32`.
    """

    __slots__ = (
        "block_size",
        "context_lens",
        "ids",
        "logit_plan",
        "logit_rows",
        "logit_tokens",
        "num_sampling",
        "part_starts",
        "positions",
        "query_starts",
        "slots",
        "trash_block",
    )

    def __init__(
        self, num_tokens: int, num_rows: int, *, block_size: int, trash_block: int, device: torch.device
    ) -> None:
        def empty(length: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(length, dtype=dtype, device=device)

        self.block_size = block_size
        self.trash_block = trash_block
        self.ids = empty(num_tokens, torch.int64)
        self.positions = empty(num_tokens, torch.int64)
        self.slots = empty(num_tokens)
        self.query_starts = empty(num_rows + 1)
        self.context_lens = empty(num_rows)
        self.part_starts = empty(num_rows)
        self.logit_tokens = empty(num_rows)
        self.logit_rows = empty(num_rows)
        self.logit_plan = empty(num_rows)
        self.num_sampling = empty(1)


def check_plan(plan: torch.Tensor, inputs: StepInputs) -> None:
    """ValueError unless the plan is `[2, R] int32` for the R rows of the inputs."""
    check_rows("plan", plan, (2, inputs.context_lens.shape[0]))
    if plan.dtype is not torch.int32:
        raise ValueError(f"plan is {plan.dtype}, expected torch.int32.")


def apply_differences(tables: RowTables, packed: torch.Tensor) -> None:
    """As step_input_triton.apply_differences."""
    words, values = packed[:, packed[0] >= 0]
    tables.arena[words.long()] = values


def build_inputs(tables: RowTables, plan: torch.Tensor, inputs: StepInputs) -> None:
    """As step_input_triton.build_inputs."""
    check_plan(plan, inputs)
    rows, counts = plan.long()
    device = plan.device
    used = counts.nonzero()[:, 0]
    starts = torch.where(counts > 0, tables.records[rows, NUM_COMPUTED].long(), 0)
    known = tables.records[rows, NUM_TOKENS].long()
    ends = counts.cumsum(0)
    inputs.query_starts[1:] = ends
    context_lens = torch.where(counts > 0, starts + counts, 0)
    inputs.context_lens.copy_(context_lens)
    num_splits = (context_lens + SPLIT_TOKENS - 1) // SPLIT_TOKENS
    num_parts = torch.where((counts <= MAX_SHORT_QUERIES) & (num_splits > 1), counts * num_splits, 0)
    inputs.part_starts.copy_(num_parts.cumsum(0) - num_parts)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    total = len(owner)
    positions = starts[owner] + torch.arange(total, device=device) - (ends - counts)[owner]
    token = torch.arange(len(inputs.ids), device=device)
    inputs.slots.copy_(inputs.trash_block * inputs.block_size + token % inputs.block_size)
    inputs.ids.zero_()
    inputs.positions.zero_()
    inputs.ids[:total] = tables.tokens[rows[owner], positions].long()
    inputs.positions[:total] = positions
    blocks = tables.blocks[rows[owner], positions // inputs.block_size].long()
    inputs.slots[:total] = (blocks * inputs.block_size + positions % inputs.block_size).int()
    samples = inputs.context_lens[used] == known[used]
    order = torch.cat([used[samples], used[~samples]])
    for target, values, padding in (
        (inputs.logit_tokens, ends[order] - 1, 0),
        (inputs.logit_rows, rows[order], -1),
        (inputs.logit_plan, order, -1),
    ):
        target.fill_(padding)
        target[: len(order)] = values.int()
    inputs.num_sampling.fill_(int(samples.sum()))


def commit_tokens(tables: RowTables, plan: torch.Tensor, inputs: StepInputs, sampled: torch.Tensor) -> None:
    """As step_input_triton.commit_tokens."""
    rows, counts = plan.long()
    used = counts > 0
    tables.records[rows[used], NUM_COMPUTED] += counts[used].int()
    targets = inputs.logit_rows[: int(inputs.num_sampling)].long()
    known = tables.records[targets, NUM_TOKENS].long()
    has_room = known < tables.shape.max_len
    targets, known = targets[has_room], known[has_room]
    tables.tokens[targets, known] = sampled[: len(has_room)][has_room]
    tables.records[targets, NUM_TOKENS] += 1
