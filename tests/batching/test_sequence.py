"""What a sequence says of itself."""

from __future__ import annotations

import math

import pytest

from batching.block_table import BlockTable
from batching.sequence import Sequence, SequenceStatus
from tests.batching.core_world import small_request


def sequence(sample_index: int = 0, timeout_s: float | None = None, seed: int = 7) -> Sequence:
    return Sequence(
        3,
        small_request("r", [0, 1, 0], max_tokens=5, seed=seed, timeout_s=timeout_s),
        sample_index,
        block_table=BlockTable(2, ""),
        stop_ids=frozenset(),
        submitted_s=10.0,
        order=10.0,
    )


def test_first_sample_waits_and_others_are_parked() -> None:
    assert sequence(0).status is SequenceStatus.WAITING
    assert sequence(1).status is SequenceStatus.PARKED


def test_first_sample_keeps_the_seed_of_the_request() -> None:
    assert sequence(0).seed == 7


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_samples_have_different_seeds_of_64_bits(seed: int) -> None:
    seeds = {sequence(index, seed=seed).seed for index in range(128)}
    assert len(seeds) == 128
    assert max(seeds) < 2**64


def test_prompt_of_the_request_is_copied() -> None:
    row = sequence()
    row.token_ids.append(1)
    assert row.request.prompt_token_ids == [0, 1, 0]


@pytest.mark.parametrize(
    ("output", "num_computed", "is_decoding"),
    [([], 0, False), ([], 2, False), ([1], 3, True), ([1], 0, False), ([1, 1], 4, True), ([1, 1], 3, False)],
)
def test_decoding_means_one_output_token_to_compute(output: list[int], num_computed: int, is_decoding: bool) -> None:
    row = sequence()
    row.token_ids += output
    row.num_computed_tokens = num_computed
    assert row.is_decoding == is_decoding
    assert row.num_remaining_tokens == 3 + len(output) - num_computed
    assert row.num_output_tokens == len(output)


def test_longest_length_is_prompt_and_max_tokens() -> None:
    assert sequence().max_len == 8


@pytest.mark.parametrize(("timeout_s", "deadline_s"), [(None, math.inf), (2.5, 12.5)])
def test_deadline_counts_from_submission(timeout_s: float | None, deadline_s: float) -> None:
    assert sequence(timeout_s=timeout_s).deadline_s == deadline_s


def test_times_are_those_of_the_sequence() -> None:
    row = sequence()
    row.scheduled_s, row.first_token_s, row.num_preemptions = 11.0, 12.0, 2
    times = row.times(13.0)
    assert (times.submitted_s, times.scheduled_s, times.first_token_s, times.finished_s) == (10.0, 11.0, 12.0, 13.0)
    assert times.num_preemptions == 2
