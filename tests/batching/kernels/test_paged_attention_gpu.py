"""The paged attention kernels on a CUDA device: equal to the reference, also when a captured step is replayed."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.batching.kernels.paged_cases import (
    CASES,
    SLOW_CASES,
    SPLIT_LEN,
    TOLERANCE,
    Batch,
    Case,
    attend,
    error,
    random_case,
)
from tests.batching.kernels.triton_child import has_triton

if not (torch.cuda.is_available() and has_triton()) or os.environ.get("TRITON_INTERPRET", "0") == "1":
    pytest.skip("needs a CUDA device and Triton, and not its interpreter", allow_module_level=True)

pytestmark = pytest.mark.gpu

ALL_CASES = {**CASES, **SLOW_CASES}
LLAMA = Case(((3000, 1), (511, 1), (1200, 5), (40, 300)), group=4, num_kv_heads=8, dims=(128, 128), dtype="bfloat16")


@pytest.fixture
def kernels() -> Any:
    import batching.kernels.paged_attention as module

    return module


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name, case in ALL_CASES.items() if case.cache_dtype is None])
def test_kernels_equal_the_reference_on_the_device(name: str, dtype: str, kernels: Any) -> None:
    assert error(kernels, replace(ALL_CASES[name], dtype=dtype), "cuda") <= 1.0


@pytest.mark.parametrize("name", [name for name, case in ALL_CASES.items() if case.cache_dtype is not None])
def test_float8_caches_equal_the_reference_on_the_device(name: str, kernels: Any) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 needs compute capability 8.9")
    assert error(kernels, ALL_CASES[name], "cuda") <= 1.0


@pytest.mark.parametrize("seed", range(40))
def test_kernels_equal_the_reference_on_the_device_for_any_mix(seed: int, kernels: Any) -> None:
    case = replace(random_case(seed), dtype="bfloat16")
    assert error(kernels, case, "cuda") <= 1.0


def test_kernels_equal_the_reference_on_the_device_for_a_large_model(kernels: Any) -> None:
    assert error(kernels, LLAMA, "cuda") <= 1.0


def test_bits_on_the_device_are_the_same_each_time(kernels: Any) -> None:
    batch = Batch(LLAMA, torch.device("cuda"))
    first = attend(kernels, batch)
    assert torch.equal(attend(kernels, batch), first)


def test_bits_of_a_decode_on_the_device_do_not_depend_on_its_neighbours(kernels: Any) -> None:
    batch = Batch(replace(LLAMA, rows=((3000, 1), (900, 1), (77, 1))), torch.device("cuda"))
    together = attend(kernels, batch)
    alone = kernels.attend_paged(
        batch.q[:, :1],
        batch.k,
        batch.v,
        kernels.PagedBatch(
            **{
                **batch.bounds(),
                "query_starts": batch.bounds()["query_starts"][:2],
                "context_lens": batch.bounds()["context_lens"][:1],
                "tables": batch.bounds()["tables"][:1],
                "part_starts": batch.bounds()["part_starts"][:1],
            }
        ),
        batch.variant,
        split_len=SPLIT_LEN,
    )
    assert torch.equal(alone, together[:1])


def test_a_captured_step_serves_other_lengths_within_its_bounds(kernels: Any) -> None:
    batch = Batch(LLAMA, torch.device("cuda"))
    bounds = kernels.PagedBatch(**batch.bounds())
    out = torch.zeros_like(attend(kernels, batch))  # compiled, and a buffer that the graph writes
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernels.attend_paged(batch.q, batch.k, batch.v, bounds, batch.variant, split_len=SPLIT_LEN, out=out)
    batch.lens = [length - 37 for length in batch.lens]
    bounds.context_lens.copy_(torch.tensor(batch.lens, dtype=torch.int32))
    graph.replay()
    torch.testing.assert_close(out.float().cpu(), batch.expected(is_scaled=False), rtol=3e-2, atol=3e-2)


def test_blocks_beyond_two_to_the_31_numbers_are_found(kernels: Any) -> None:
    batch = Batch(LLAMA, torch.device("cuda"))
    expected = batch.expected(is_scaled=False)
    first = 2**31 // batch.k[0].numel()
    batch.k, batch.v = (torch.cat([cache.new_zeros(first, *cache.shape[1:]), cache]) for cache in (batch.k, batch.v))
    batch.tables += first
    torch.testing.assert_close(attend(kernels, batch).float().cpu(), expected, rtol=3e-2, atol=3e-2)
