"""The book sends what the device lacks and nothing else, and what it thinks is there is there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from batching import row_tables
from batching.kernels.paged_attention_config import num_parts_of
from batching.row_book import RowBook, RowPlan, packed_writes
from batching.row_tables import RECORD_WORDS, RowShape
from batching.step import UNKNOWN_TOKEN, ScheduledSequence, SchedulerOutput
from contracts.sampling import SamplingParams

BLOCK_SIZE = 4
SHAPE = RowShape(num_rows=4, max_len=2000, max_blocks=500, max_edits=3)
EOS = frozenset({1})


def sequence(seq_id: int, token_ids: list[int], start: int = 0, **changes: Any) -> ScheduledSequence:
    num_blocks = -(-(start + len(token_ids)) // BLOCK_SIZE)
    values: dict[str, Any] = {
        "seq_id": seq_id,
        "token_ids": token_ids,
        "start": start,
        "block_ids": [100 * seq_id + index for index in range(num_blocks)],
        "is_sampling": True,
        "sampling": SHARED[seq_id % len(SHARED)],
        "seed": seq_id,
        "num_output_tokens": 0,
    }
    return ScheduledSequence(**(values | changes))


SHARED = tuple(SamplingParams(temperature=index) for index in range(8))
"""Sampling of each sequence: the same object in all its plans, as the scheduler has it."""


def plan_of(*rows: ScheduledSequence) -> SchedulerOutput:
    lens = [len(row.token_ids) for row in rows]
    decodes = next((index for index, row in enumerate(rows) if lens[index] > 1 or not row.is_sampling), len(rows))
    return SchedulerOutput(step_id=0, sequences=list(rows), num_tokens=sum(lens), num_decodes=decodes)


class Arena:
    """What the device would hold after each plan that was kept."""

    def __init__(self, shape: RowShape = SHAPE) -> None:
        self.shape = shape
        self.words: npt.NDArray[np.int32] = np.full(shape.num_words, -9, np.int32)

    def take(self, row_plan: RowPlan) -> int:
        """Apply a plan's writes; returns how many words were sent."""
        words, values = packed_writes(row_plan.writes)
        assert len(set(words.tolist())) == len(words), "a word is written twice, in any order"
        self.words[words] = values
        return len(words)

    def record(self, row: int) -> list[int]:
        return self._at(row * RECORD_WORDS, RECORD_WORDS)

    def tokens(self, row: int, num_tokens: int) -> list[int]:
        return self._at(self.shape.first_token_word + row * self.shape.max_len, num_tokens)

    def blocks(self, row: int, num_blocks: int) -> list[int]:
        return self._at(self.shape.first_block_word + row * self.shape.max_blocks, num_blocks)

    def edits(self, row: int, num_edits: int) -> tuple[list[int], list[float]]:
        ids = self._at(self.shape.first_edit_id_word + row * self.shape.max_edits, num_edits)
        values = self._at(self.shape.first_edit_value_word + row * self.shape.max_edits, num_edits)
        return ids, np.array(values, np.int32).view(np.float32).tolist()

    def _at(self, first: int, num_words: int) -> list[int]:
        return [int(word) for word in self.words[first : first + num_words]]


def new_book(shape: RowShape = SHAPE) -> RowBook:
    return RowBook(shape, BLOCK_SIZE, EOS)


def kept(book: RowBook, *rows: ScheduledSequence) -> RowPlan:
    row_plan = book.begin(plan_of(*rows))
    book.keep()
    return row_plan


def row_in(book: RowBook, seq_id: int) -> int:
    row = book.row_of(seq_id)
    assert row is not None
    return row


def test_a_new_sequence_sends_its_record_tokens_and_blocks() -> None:
    book, arena = new_book(), Arena()
    first = sequence(3, [7, 8, 9, 10, 11])
    arena.take(kept(book, first))
    row = row_in(book, 3)
    expected = row_tables.pack_record(first, num_tokens=5, prompt_len=5, num_edits=0)
    assert arena.record(row) == expected.tolist()
    assert arena.tokens(row, 5) == [7, 8, 9, 10, 11]
    assert arena.blocks(row, 2) == [300, 301]


def test_a_decode_within_a_block_sends_nothing() -> None:
    book, arena = new_book(), Arena()
    kept(book, sequence(0, [7, 8, 9, 10, 11]))
    row_plan = kept(book, sequence(0, [UNKNOWN_TOKEN], 5))
    assert arena.take(row_plan) == 0
    assert (row_plan.rows, row_plan.counts, row_plan.context_lens) == ([row_in(book, 0)], [1], [6])


def test_a_decode_into_a_new_block_sends_its_id_alone() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(2, [7, 8, 9, 10])))
    assert arena.take(kept(book, sequence(2, [UNKNOWN_TOKEN], 4))) == 1
    assert arena.blocks(row_in(book, 2), 2) == [200, 201]


def test_a_chunk_that_is_not_the_last_does_not_sample() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3], is_sampling=False)))
    assert arena.record(row_in(book, 0))[:2] == [4, 0]
    arena.take(kept(book, sequence(0, [4], 3, is_sampling=False)))
    assert arena.record(row_in(book, 0))[:2] == [5, 3]
    assert arena.take(kept(book, sequence(0, [5, 6], 4, num_output_tokens=2))) == 3 + 2 + 1
    assert arena.record(row_in(book, 0))[:3] == [6, 4, 4]
    assert arena.tokens(row_in(book, 0), 6) == [1, 2, 3, 4, 5, 6]


def test_the_last_token_of_a_prompt_alone_in_its_chunk_is_sent() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3], is_sampling=False)))
    arena.take(kept(book, sequence(0, [4], 3)))
    assert arena.record(row_in(book, 0))[:3] == [4, 3, 4]
    assert arena.tokens(row_in(book, 0), 4) == [1, 2, 3, 4]


def test_a_preempted_sequence_is_sent_again_in_its_own_row() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3])))
    row = row_in(book, 0)
    arena.take(kept(book, sequence(0, [1, 2, 3, 4], 0, num_output_tokens=1, block_ids=[9])))
    assert row_in(book, 0) == row
    assert arena.record(row)[:3] == [4, 0, 3]
    assert arena.blocks(row, 1) == [9]


def test_one_that_comes_back_at_the_same_token_with_other_blocks_gets_them() -> None:
    """Its cached prefix may stand in blocks that another sequence computed."""
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3, 4, 5, 6, 7, 8], is_sampling=False)))
    arena.take(kept(book, sequence(0, [9, 10], 8, block_ids=[55, 66, 77])))
    assert arena.blocks(row_in(book, 0), 3) == [55, 66, 77]
    arena.take(kept(book, sequence(1, [1, 2, 3, 4])))
    arena.take(kept(book, sequence(1, [5], 4, block_ids=[44, 45])))
    assert arena.blocks(row_in(book, 1), 2) == [44, 45]


def test_another_request_under_the_same_id_is_new() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3])))
    other = sequence(0, [7], 3, sampling=SamplingParams(temperature=0.5), seed=77)
    arena.take(kept(book, other))
    expected = row_tables.pack_record(other, num_tokens=4, prompt_len=4, num_edits=0)
    assert arena.record(row_in(book, 0)) == expected.tolist()


def test_penalties_bring_the_whole_history() -> None:
    book, arena = new_book(), Arena()
    sampling = SamplingParams(presence_penalty=1.0)
    late = {"sampling": sampling, "prompt_token_ids": [5, 6, 7], "output_token_ids": [8, 9]}
    arena.take(kept(book, sequence(0, [9], 4, num_output_tokens=2, **late)))
    assert arena.tokens(row_in(book, 0), 5) == [5, 6, 7, 8, 9]
    assert arena.record(row_in(book, 0))[:3] == [5, 4, 3]


def test_edits_are_sent_with_the_record() -> None:
    book, arena = new_book(), Arena()
    sampling = SamplingParams(logit_bias=((3, 0.5),), min_tokens=2, stop_token_ids=(8,))
    arena.take(kept(book, sequence(0, [1], sampling=sampling)))
    row = row_in(book, 0)
    assert arena.edits(row, 3) == ([3, 1, 8], [0.5, float("-inf"), float("-inf")])
    assert arena.record(row)[row_tables.NUM_EDITS] == 3


def test_too_many_edits_are_refused_and_change_nothing() -> None:
    book = new_book()
    sampling = SamplingParams(logit_bias=tuple((token_id, 1.0) for token_id in range(4)))
    with pytest.raises(ValueError, match="4 edited token ids, at most 3"):
        book.begin(plan_of(sequence(0, [1, 2]), sequence(1, [1], sampling=sampling)))
    assert book.row_of(0) is None
    assert len(kept(book, *(sequence(index, [1, 2]) for index in range(4))).rows) == 4


def test_an_unknown_token_without_its_row_is_refused() -> None:
    book = new_book()
    with pytest.raises(ValueError, match="sequence 0 at position 5 from the device, which does not have it"):
        book.begin(plan_of(sequence(0, [UNKNOWN_TOKEN], 5)))
    kept(book, sequence(0, [1, 2, 3], is_sampling=False))
    with pytest.raises(ValueError, match="which does not have it"):
        book.begin(plan_of(sequence(0, [UNKNOWN_TOKEN], 3)))


def test_single_tokens_come_first_and_know_their_place_in_the_plan() -> None:
    book = new_book()
    row_plan = kept(book, sequence(0, [1, 2]), sequence(1, [3]), sequence(2, [4, 5, 6]), sequence(3, [7]))
    assert row_plan.order == [1, 3, 0, 2]
    assert row_plan.counts == [1, 1, 2, 3]
    assert row_plan.rows == [row_in(book, seq_id) for seq_id in (1, 3, 0, 2)]
    assert row_plan.num_singles == 2


def test_an_undone_plan_is_sent_again_as_it_was() -> None:
    book = new_book()
    kept(book, sequence(0, [1, 2, 3]), sequence(1, [1, 2, 3, 4]), sequence(2, [1, 2, 3], is_sampling=False))
    second = [
        sequence(0, [UNKNOWN_TOKEN], 3),
        sequence(1, [UNKNOWN_TOKEN], 4),
        sequence(2, [4, 5], 3),
        sequence(3, [9, 9]),
    ]
    tried = book.begin(plan_of(*second))
    book.undo()
    assert book.row_of(3) is None
    again = book.begin(plan_of(*second))
    assert packed_writes(again.writes).tolist() == packed_writes(tried.writes).tolist()
    assert again.rows == tried.rows
    assert again.context_lens == tried.context_lens == [4, 5, 5, 2]


def test_parts_of_an_undone_plan_can_be_taken_one_by_one() -> None:
    book, arena = new_book(), Arena()
    arena.take(kept(book, sequence(0, [1, 2, 3]), sequence(1, [1, 2, 3, 4])))
    rows = [sequence(0, [UNKNOWN_TOKEN], 3), sequence(1, [UNKNOWN_TOKEN], 4), sequence(2, [5]), sequence(3, [6])]
    book.begin(plan_of(*rows))
    book.undo()
    for part in rows:
        arena.take(kept(book, part))
    assert arena.blocks(row_in(book, 1), 2) == [100, 101]


def test_the_least_recently_planned_row_is_taken_back() -> None:
    book = new_book()
    kept(book, sequence(0, [1]), sequence(1, [1]))
    kept(book, sequence(1, [2], 1), sequence(2, [1]))
    kept(book, sequence(1, [2], 2), sequence(3, [1]))
    old_row = row_in(book, 0)
    kept(book, sequence(1, [2], 3), sequence(4, [1]))
    assert book.row_of(0) is None
    assert row_in(book, 4) == old_row
    assert None not in [book.row_of(seq_id) for seq_id in (1, 2, 3)]


def test_no_row_of_the_last_two_plans_is_taken_back() -> None:
    book = new_book()
    for step in range(20):
        kept(book, sequence(2 * step, [1]), sequence(2 * step + 1, [1]))
        last_two = range(max(0, 2 * step - 2), 2 * step + 2)
        rows = {book.row_of(seq_id) for seq_id in last_two}
        assert len(rows) == len(last_two)
        assert None not in rows


def test_more_new_rows_than_can_be_taken_back_are_refused() -> None:
    book = new_book()
    kept(book, *(sequence(index, [1]) for index in range(4)))
    with pytest.raises(ValueError, match="2 more rows are needed"):
        book.begin(plan_of(sequence(5, [1]), sequence(6, [1])))
    assert arena_of_all(book) == 4


def arena_of_all(book: RowBook) -> int:
    return len({book.row_of(seq_id) for seq_id in range(4)} - {None})


@pytest.mark.parametrize("lens", [[1, 1, 1], [1, 16, 17], [2, 5, 40], [1]], ids=str)
@pytest.mark.parametrize("start", [0, 511, 700, 1030])
def test_bounds_are_those_that_attention_counts(lens: list[int], start: int) -> None:
    rows = [sequence(index, [3] * length, start + 100 * index) for index, length in enumerate(lens)]
    row_plan = new_book().begin(plan_of(*rows))
    counts, contexts = np.array(row_plan.counts, np.int32), np.array(row_plan.context_lens, np.int32)
    assert row_plan.num_parts() == num_parts_of(counts, contexts).sum()
    assert row_plan.max_context_len == max(row.context_len for row in rows)
    assert row_plan.max_short_queries == max(length for length in lens if length <= 16)
    assert row_plan.has_chunks == (max(lens) > 16)


def test_a_chunk_alone_has_no_short_queries() -> None:
    row_plan = new_book().begin(plan_of(sequence(0, [3] * 17)))
    assert (row_plan.max_short_queries, row_plan.has_chunks) == (0, True)


def test_sequences_of_one_request_share_its_sampling_and_nothing_else() -> None:
    book, arena = new_book(), Arena()
    sampling = SHARED[0]
    arena.take(kept(book, sequence(0, [1, 2]), msgspec.structs.replace(sequence(1, [3, 4]), sampling=sampling)))
    rows = row_in(book, 0), row_in(book, 1)
    assert rows[0] != rows[1]
    assert [arena.tokens(row, 2) for row in rows] == [[1, 2], [3, 4]]
