"""The rows' tables and the differences that the host sends them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batching import row_tables
from batching.row_tables import Differences, RowShape, RowTables
from batching.step import ScheduledSequence
from contracts.sampling import SamplingParams

SHAPE = RowShape(num_rows=3, max_len=10, max_blocks=4, max_edits=2)
EOS = frozenset({1})


def make_sequence(sampling: SamplingParams, seed: int = 0) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=0,
        token_ids=[5],
        start=6,
        block_ids=[2, 1],
        is_sampling=True,
        sampling=sampling,
        seed=seed,
        num_output_tokens=0,
    )


def applied(differences: Differences, capacity: int = 64) -> RowTables:
    tables = RowTables(SHAPE, torch.device("cpu"))
    words, values = differences.packed(capacity)
    tables.arena[torch.from_numpy(words[words >= 0]).long()] = torch.from_numpy(values[words >= 0])
    return tables


def test_each_part_of_a_row_goes_to_its_own_place() -> None:
    differences = Differences(SHAPE)
    differences.tokens(1, 3, [11, 12])
    differences.blocks(2, 1, [21])
    differences.edits(0, [(4, 1.5), (9, float("-inf"))])
    differences.record(2, row_tables.TOP_K, [40])

    tables = applied(differences)

    assert tables.tokens[1].tolist() == [0, 0, 0, 11, 12, 0, 0, 0, 0, 0]
    assert tables.blocks[2].tolist() == [0, 21, 0, 0]
    assert tables.edit_ids[0].tolist() == [4, 9]
    assert tables.edit_values[0].tolist() == [1.5, float("-inf")]
    assert tables.records[2, row_tables.TOP_K] == 40
    assert int((tables.arena != 0).sum()) == 8


def test_the_last_write_to_a_word_counts() -> None:
    differences = Differences(SHAPE)
    differences.tokens(1, 0, [1, 2, 3])
    differences.tokens(1, 1, [9])

    assert applied(differences).tokens[1, :3].tolist() == [1, 9, 3]


def test_what_was_packed_is_not_sent_again() -> None:
    differences = Differences(SHAPE)
    differences.tokens(1, 0, [1])
    differences.packed(8)

    assert (differences.packed(8)[0] == row_tables.NO_WORD).all()


def test_too_much_for_one_difference_is_told_and_kept() -> None:
    differences = Differences(SHAPE)
    differences.tokens(1, 0, [1, 2, 3])
    with pytest.raises(ValueError, match="3 words changed, at most 2"):
        differences.packed(2)

    assert applied(differences).tokens[1, :3].tolist() == [1, 2, 3]


def test_too_many_edits_are_refused() -> None:
    with pytest.raises(ValueError, match="3 edited token ids, at most 2"):
        Differences(SHAPE).edits(0, [(1, 1.0), (2, 1.0), (3, 1.0)])


def test_an_arena_that_an_int32_cannot_address_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 2147483647"):
        RowTables(RowShape(num_rows=4096, max_len=1 << 20, max_blocks=1, max_edits=0), torch.device("cpu"))


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_wide_numbers_survive_the_record_bit_by_bit(seed: int) -> None:
    sampling = SamplingParams(temperature=0.7, top_p=0.9, min_p=0.05, presence_penalty=-1.1, frequency_penalty=0.3)
    record = row_tables.pack_record(make_sequence(sampling, seed), num_tokens=7, prompt_len=3, num_edits=0)

    doubles = record[row_tables.TEMPERATURE : row_tables.SEED].view(np.float64).tolist()

    assert doubles == [0.7, 0.9, 0.05, -1.1, 0.3]
    assert record[row_tables.SEED : row_tables.SEED + 2].view(np.uint64).tolist() == [seed]


def test_endings_are_edits_only_where_min_tokens_forbids_them() -> None:
    bias = ((3, 0.5),)
    free = SamplingParams(logit_bias=bias, stop_token_ids=(8,))
    bound = SamplingParams(logit_bias=bias, stop_token_ids=(8,), min_tokens=2)
    ignoring = SamplingParams(stop_token_ids=(8,), min_tokens=2, ignore_eos=True)

    assert row_tables.edits_of(make_sequence(free), EOS) == [(3, 0.5)]
    assert row_tables.edits_of(make_sequence(bound), EOS) == [(3, 0.5), (1, float("-inf")), (8, float("-inf"))]
    assert row_tables.edits_of(make_sequence(ignoring), EOS) == [(8, float("-inf"))]
