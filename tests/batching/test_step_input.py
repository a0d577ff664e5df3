"""The packed tensors of a step follow its plan: single tokens first, positions, slots, tables and sampled rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batching.step import ScheduledSequence, SchedulerOutput
from batching.step_input import StepInput, input_ids, position_ids
from contracts.sampling import SamplingParams

BLOCK_SIZE = 4


def row(token_ids: list[int], start: int, block_ids: list[int], is_sampling: bool = True) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=token_ids[0],
        token_ids=token_ids,
        start=start,
        block_ids=block_ids,
        is_sampling=is_sampling,
        sampling=SamplingParams(),
        seed=0,
        num_output_tokens=0,
    )


def pack(*rows: ScheduledSequence) -> StepInput:
    num_tokens = sum(len(row.token_ids) for row in rows)
    plan = SchedulerOutput(step_id=0, sequences=list(rows), num_tokens=num_tokens, num_decodes=0)
    return StepInput(plan, BLOCK_SIZE)


MIXED = (
    row([10], 5, [7, 3, 9]),
    row([20, 21, 22], 3, [1, 2], is_sampling=False),
    row([30], 0, [4]),
    row([40, 41], 0, [8, 6]),
)


def test_single_tokens_come_before_chunks() -> None:
    step = pack(*MIXED)
    assert (step.num_tokens, step.num_single) == (7, 2)
    assert step.ids.tolist() == [10, 30, 20, 21, 22, 40, 41]
    assert step.positions.tolist() == [5, 0, 3, 4, 5, 0, 1]


def test_every_token_goes_to_the_slot_of_its_position() -> None:
    step = pack(*MIXED)
    assert step.block_of.tolist() == [3, 4, 1, 2, 2, 8, 8]
    assert step.offset_of.tolist() == [1, 0, 3, 0, 1, 0, 1]


def test_tables_of_single_tokens_hold_the_blocks_in_use() -> None:
    step = pack(*MIXED)
    assert step.context_lens.tolist() == [6, 1]
    assert step.tables.tolist() == [[7, 3], [4, 0]]
    assert step.tables.dtype == step.context_lens.dtype == np.int32


def test_chunks_know_their_rows_and_blocks() -> None:
    first, second = pack(*MIXED).prefills
    assert (first.first_row, first.num_tokens, first.start, first.block_ids.tolist()) == (2, 3, 3, [1, 2])
    assert (second.first_row, second.num_tokens, second.start, second.block_ids.tolist()) == (5, 2, 0, [8])


def test_sampled_rows_are_the_last_of_their_sequences() -> None:
    step = pack(*MIXED)
    assert step.sample_rows == [0, 1, 6]
    assert step.sample_index == [0, 2, 3]
    assert [sequence.seq_id for sequence in step.sampling] == [10, 30, 40]


def test_last_row_of_every_sequence_gets_logits_those_that_sample_first() -> None:
    step = pack(*MIXED)
    assert step.logit_rows == [0, 1, 6, 4]
    assert step.checked_index == [1]
    assert [sequence.seq_id for sequence in step.checked] == [20]


def test_step_without_single_tokens_has_empty_tables() -> None:
    step = pack(row([1, 2], 0, [0], is_sampling=False))
    assert step.tables.shape == (0, 0)
    assert (step.sample_rows, step.logit_rows) == ([], [1])


@pytest.mark.parametrize(("start", "num_blocks"), [(3, 1), (4, 2), (7, 2), (8, 3)])
def test_table_grows_at_block_edges(start: int, num_blocks: int) -> None:
    assert pack(row([1], start, [5, 6, 7, 8])).tables.tolist() == [[5, 6, 7, 8][:num_blocks]]


def test_tensors_have_one_batch_row() -> None:
    step = pack(*MIXED)
    device = torch.device("cpu")
    assert input_ids(step, device).shape == position_ids(step, device).shape == (1, 7)
    assert input_ids(step, device).dtype == torch.int64
