"""The KV tensors have the layers' shapes, fit the memory given, and are cleared block by block."""

from __future__ import annotations

import pytest
import torch

from batching import kv_cache
from batching.kv_cache import (
    KVCachePool,
    LayerShape,
    check_cache_fits,
    default_cache_bytes,
    num_blocks_within,
    token_bytes,
)
from contracts.errors import NotEnoughMemory

SHAPES = [LayerShape(num_kv_heads=2, k_dim=8, v_dim=8), LayerShape(num_kv_heads=1, k_dim=12, v_dim=4)]
CPU = torch.device("cpu")
MIB = 2**20


def make_pool(dtype: torch.dtype = torch.float32) -> KVCachePool:
    return KVCachePool(SHAPES, num_blocks=5, block_size=4, dtype=dtype, device=CPU)


def test_each_layer_has_its_own_shape() -> None:
    pool = make_pool(torch.bfloat16)
    assert [tuple(layer.k.shape) for layer in pool.layers] == [(5, 2, 4, 8), (5, 1, 4, 12)]
    assert [tuple(layer.v.shape) for layer in pool.layers] == [(5, 2, 4, 8), (5, 1, 4, 4)]
    assert {layer.k.dtype for layer in pool.layers} == {torch.bfloat16}


def test_clear_zeroes_the_named_blocks_only() -> None:
    pool = make_pool()
    pool.layers[0].k.fill_(torch.nan)
    pool.layers[1].v.fill_(1.0)
    pool.clear([1, 4])
    assert pool.layers[0].k[[1, 4]].abs().sum() == 0
    assert pool.layers[0].k[[0, 2, 3]].isnan().all()
    assert pool.layers[1].v.sum(dim=(1, 2, 3)).tolist() == [16.0, 0.0, 16.0, 16.0, 0.0]


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, 4 * 48), (torch.bfloat16, 2 * 48)])
def test_bytes_of_a_token_are_those_of_all_layers(dtype: torch.dtype, expected: int) -> None:
    assert token_bytes(SHAPES, dtype) == expected
    pool = make_pool(dtype)
    num_bytes = sum(tensor.numel() * tensor.element_size() for layer in pool.layers for tensor in (layer.k, layer.v))
    assert num_bytes == expected * pool.num_blocks * pool.block_size


@pytest.mark.parametrize(("cache_bytes", "num_blocks"), [(1000, 10), (1099, 10), (1100, 11)])
def test_blocks_are_what_fits(cache_bytes: int, num_blocks: int) -> None:
    assert num_blocks_within(cache_bytes, block_bytes=100, min_tokens=160, block_size=16) == num_blocks


def test_cache_too_small_for_one_request_is_refused_with_both_remedies() -> None:
    with pytest.raises(NotEnoughMemory) as caught:
        num_blocks_within(10 * MIB, block_bytes=MIB, min_tokens=161, block_size=16)
    message = caught.value.message
    assert "has 10.0 MiB, which holds 160 tokens" in message
    assert "(161 tokens) needs 11.0 MiB" in message
    assert "raise --kv-cache-memory to 11MiB, or lower --max-model-len to 160" in message


def test_cache_that_holds_nothing_can_only_be_made_larger() -> None:
    with pytest.raises(NotEnoughMemory, match=r"raise --kv-cache-memory to 2MiB\.$"):
        num_blocks_within(1000, block_bytes=MIB, min_tokens=32, block_size=16)


def test_cache_larger_than_the_memory_is_refused_with_what_would_fit() -> None:
    check_cache_fits(5 * MIB, 5 * MIB)
    with pytest.raises(NotEnoughMemory, match=r"would take 6.0 MiB, but 5.0 MiB .* at most 5MiB"):
        check_cache_fits(6 * MIB, 5 * MIB)


@pytest.mark.parametrize(
    ("weight_mib", "free_mib", "expected_mib"),
    [(100, 8000, 512), (1000, 8000, 1000), (6000, 8000, 4000), (100, 600, 300)],
)
def test_default_size_on_a_cpu_follows_weights_and_free_memory(
    monkeypatch: pytest.MonkeyPatch, weight_mib: int, free_mib: int, expected_mib: int
) -> None:
    monkeypatch.setattr(kv_cache, "free_memory_bytes", lambda _: free_mib * MIB)
    assert default_cache_bytes(weight_mib * MIB, CPU) == expected_mib * MIB


def test_free_memory_of_this_machine_is_a_positive_number() -> None:
    assert kv_cache.free_memory_bytes(CPU) > MIB
