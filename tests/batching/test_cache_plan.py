"""The sums of a GPU's memory: what is left becomes blocks, and what does not fit is refused with the sum."""

from __future__ import annotations

from typing import Any

import pytest

from batching.cache_plan import CacheDemand, DeviceUse, plan_blocks
from contracts.errors import NotEnoughMemory

GIB = 2**30
MIB = 2**20
USE = DeviceUse(total_bytes=24 * GIB, used_bytes=9 * GIB, peak_bytes=GIB, utilization=0.75)
"""8 GiB are left for the cache, 14 GiB of the memory."""
DEMAND = CacheDemand(block_bytes=2 * MIB, block_size=16, max_model_len=4096, max_num_seqs=64)
"""A request of full length takes 256 blocks, half a GiB."""


def changed(struct: Any, **fields: Any) -> Any:
    return type(struct)(**{name: getattr(struct, name) for name in struct.__struct_fields__} | fields)


def refusal_of(use: DeviceUse, demand: CacheDemand, wanted_bytes: int | None = None) -> str:
    with pytest.raises(NotEnoughMemory) as caught:
        plan_blocks(use, demand, wanted_bytes)
    return caught.value.message


def test_what_the_utilization_leaves_becomes_blocks_less_a_spare_one() -> None:
    assert USE.cache_bytes == 8 * GIB
    assert plan_blocks(USE, DEMAND, None) == 8 * GIB // (2 * MIB) - 1


@pytest.mark.parametrize(
    ("fields", "num_bytes"),
    [
        ({"utilization": 1.0}, 14 * GIB),
        ({"peak_bytes": 0}, 9 * GIB),
        ({"used_bytes": 17 * GIB}, 0),
        ({"used_bytes": 23 * GIB}, 0),
    ],
)
def test_every_term_of_the_sum_counts(fields: dict[str, Any], num_bytes: int) -> None:
    assert changed(USE, **fields).cache_bytes == num_bytes


def test_no_more_blocks_than_a_full_batch_uses() -> None:
    assert plan_blocks(USE, changed(DEMAND, max_num_seqs=3), None) == 3 * 256


@pytest.mark.parametrize(("max_model_len", "fits"), [(65520, True), (65521, False)])
def test_one_request_of_full_length_must_fit_beside_the_spare_block(max_model_len: int, fits: bool) -> None:
    demand = changed(DEMAND, max_model_len=max_model_len)
    outcome = plan_blocks(USE, demand, None) if fits else refusal_of(USE, demand)
    assert outcome == 4095 or "(65521 tokens) needs 8.0 GiB of KV cache" in str(outcome)


def test_refusal_tells_the_sum_the_longest_context_and_the_flags() -> None:
    message = refusal_of(USE, changed(DEMAND, max_model_len=131072))
    assert message == (
        "one request of full length (131072 tokens) needs 16.0 GiB of KV cache, but 8.0 GiB are left: 18.0 GiB "
        "(--gpu-memory-utilization 0.75 of 24.0 GiB) less 9.0 GiB in use with the weights and 1.0 GiB for the largest "
        "step. The longest context that fits is 65520 tokens: take --max-model-len 65520, --kv-dtype fp8 (a smaller "
        "cache), a lower --max-num-seqs or --max-num-batched-tokens (a smaller step), or a higher "
        "--gpu-memory-utilization."
    )


def test_the_longest_context_that_is_told_fits() -> None:
    assert plan_blocks(USE, changed(DEMAND, max_model_len=65520), None) == 4095


def test_where_nothing_fits_no_length_is_told() -> None:
    message = refusal_of(changed(USE, used_bytes=20 * GIB), changed(DEMAND, is_fp8=True))
    assert "No context fits: take a lower --max-model-len, a lower --max-num-seqs" in message
    assert "--kv-dtype" not in message


def test_size_that_was_asked_for_is_taken_beyond_the_utilization() -> None:
    assert plan_blocks(USE, changed(DEMAND, max_num_seqs=1000), 12 * GIB) == 12 * GIB // (2 * MIB) - 1


def test_size_that_was_asked_for_and_is_too_small_is_refused_with_one_that_is_not() -> None:
    message = refusal_of(USE, DEMAND, 100 * MIB)
    assert "but --kv-cache-memory gives it 100.0 MiB. The longest context that fits is 784 tokens" in message
    assert "raise it to 514MiB, or take --max-model-len 784" in message
    assert plan_blocks(USE, DEMAND, 514 * MIB) == 256


def test_size_beyond_the_memory_is_refused_with_what_would_fit() -> None:
    message = refusal_of(USE, changed(DEMAND, max_num_seqs=1000), 15 * GIB)
    assert message == (
        "--kv-cache-memory asks for 15.0 GiB, but of the GPU's 24.0 GiB 9.0 GiB are in use and the largest step takes "
        "1.0 GiB: lower it to at most 14336MiB, or leave it out."
    )
