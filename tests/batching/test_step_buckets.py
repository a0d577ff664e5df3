"""Steps of all sizes find a bucket that holds them, and captured ones are few."""

from __future__ import annotations

import pytest

from batching.kernels.paged_attention_config import SPLIT_TOKENS
from batching.step_buckets import Bucket, StepSize, choose_bucket, padded_decodes

MAX_LEN = 4096


def bucket_of(
    num_tokens: int, num_rows: int, context_len: int = 100, num_parts: int = 0, max_rows: int = 512
) -> Bucket:
    size = StepSize(num_tokens=num_tokens, num_rows=num_rows, max_context_len=context_len, num_parts=num_parts)
    return choose_bucket(size, max_rows, MAX_LEN)


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 48), (255, 256), (257, 288), (512, 512), (513, 544)],
)
def test_decodes_are_padded_in_steps(num_rows: int, expected: int) -> None:
    bucket = bucket_of(num_rows, num_rows, max_rows=1024)
    assert padded_decodes(num_rows) == bucket.num_tokens == bucket.num_rows == expected
    assert bucket.is_captured == (expected <= 512)
    assert not bucket.has_chunks


@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "tokens", "rows"),
    [(2, 1, 64, 8), (64, 8, 64, 8), (65, 9, 128, 32), (500, 100, 512, 128), (1000, 200, 1024, 512)],
)
def test_mixed_steps_are_padded_to_few_sizes(num_tokens: int, num_rows: int, tokens: int, rows: int) -> None:
    bucket = bucket_of(num_tokens, num_rows)
    assert (bucket.num_tokens, bucket.num_rows) == (tokens, rows)
    assert bucket.is_captured
    assert bucket.has_chunks


def test_large_steps_run_eagerly() -> None:
    bucket = bucket_of(1025, 3)
    assert not bucket.is_captured
    assert (bucket.num_tokens, bucket.num_rows) == (1088, 8)


def test_rows_of_a_mixed_step_are_never_more_than_there_can_be() -> None:
    assert bucket_of(100, 20, max_rows=32).num_rows == 32
    assert bucket_of(100, 40, max_rows=48).num_rows == 48


def test_contexts_of_one_split_have_buckets_of_their_own() -> None:
    short, long = bucket_of(8, 8, SPLIT_TOKENS), bucket_of(8, 8, SPLIT_TOKENS + 1)
    assert short.bounds(MAX_LEN).max_context_len == SPLIT_TOKENS
    assert short.bounds(MAX_LEN).num_parts == 0
    assert long.bounds(MAX_LEN).max_context_len == MAX_LEN
    assert long.bounds(MAX_LEN).num_parts == 64


def test_one_context_of_full_length_fits_beside_others() -> None:
    assert bucket_of(1, 1, MAX_LEN, 8).is_captured
    assert bucket_of(2, 2, MAX_LEN, 9).is_captured


def test_more_parts_than_a_bucket_has_room_for_run_eagerly() -> None:
    assert bucket_of(8, 8, 4000, num_parts=64).is_captured
    assert not bucket_of(8, 8, 4000, num_parts=65).is_captured


def test_there_are_few_graphs() -> None:
    buckets = {
        bucket_of(tokens, rows, context)
        for tokens in range(1, 1025, 7)
        for rows in range(1, min(tokens, 512) + 1, 5)
        for context in (100, 1000)
    }
    assert len({bucket for bucket in buckets if bucket.is_captured}) <= 2 * (5 + 15 + 8 + 5 * 4)


@pytest.mark.parametrize("num_tokens", [1, 5, 63, 64, 65, 300, 1024, 5000])
@pytest.mark.parametrize("num_rows", [1, 3, 17, 64, 256])
def test_every_step_fits_into_its_bucket(num_tokens: int, num_rows: int) -> None:
    tokens = max(num_tokens, num_rows)
    bucket = bucket_of(tokens, num_rows, max_rows=256)
    assert bucket.num_tokens >= tokens
    assert bucket.num_rows >= num_rows
