"""The budget, the need of a model, and the arithmetic in words; that it is the engine's: test_model_estimates."""

from __future__ import annotations

from typing import Any

import pytest

from batching import machine
from contracts.model_catalog import ModelProfile
from contracts.settings import CatalogSettings, EngineSettings
from service import model_memory
from service.gpu_memory import GpuMemory
from service.model_memory import DeviceMemory, MemoryNeed, device_memory, estimate_memory, memory_budget
from service.ready_models import READY_MODELS

GIB = 2**30
MACHINE = DeviceMemory(free_bytes=64 * GIB)


def need(alias: str, memory: DeviceMemory = MACHINE, **settings: Any) -> MemoryNeed:
    found = estimate_memory(READY_MODELS[alias].profile, EngineSettings(**settings), memory)
    assert found is not None
    return found


def test_unknown_hub_name_has_no_estimate_unless_it_is_declared() -> None:
    profile = ModelProfile(alias="a", model="org/quire-test-of-a-missing-model")
    assert estimate_memory(profile, EngineSettings(), MACHINE) is None
    declared = ModelProfile(alias="a", model=profile.model, memory_bytes=3 * GIB)
    found = estimate_memory(declared, EngineSettings(), MACHINE)
    assert found is not None
    assert found.total_bytes == 3 * GIB
    assert found.explain(GIB) == "needs 3.0 GiB as declared; the budget has 1.0 GiB left"


def test_llama_1b_in_bfloat16_is_known_before_it_is_fetched() -> None:
    """Published: 2.47 GB of weights; 32 KiB of cache for a token."""
    found = need("llama-3.2-1b-instruct", kv_cache_memory="1GiB")
    assert found.weight_bytes == 2_471_628_800
    assert found.cache_bytes == GIB
    assert found.overhead_bytes == model_memory.PROCESS_BYTES + 2 * 128256 * 2048


def test_sum_is_told_in_words() -> None:
    found = MemoryNeed(weight_bytes=GIB, cache_bytes=GIB // 2, overhead_bytes=GIB // 4)
    assert found.explain() == "needs 1.8 GiB: weights 1.0 GiB + KV cache 512.0 MiB + process 256.0 MiB"
    assert found.explain(-5).endswith("; the budget has 0 B left")


def test_32_bits_double_the_weights() -> None:
    half, full = need("llama-3.1-8b"), need("llama-3.1-8b", dtype="float32")
    assert full.weight_bytes == 2 * half.weight_bytes


def test_profile_wins_over_the_common_type() -> None:
    assert need("gemma-2-2b", dtype="float32") == need("gemma-2-2b")


def test_cache_is_cut_to_the_memory_that_is_left() -> None:
    tight = need("llama-3.2-3b", DeviceMemory(free_bytes=8 * GIB))
    left = 8 * GIB - tight.weight_bytes
    assert left // 2 - tight.cache_bytes < 16 * 2 * 28 * 8 * 128 * 2
    assert tight.cache_bytes <= left // 2


def test_cache_is_nothing_where_not_even_the_weights_fit() -> None:
    assert need("llama-3.1-8b", DeviceMemory(free_bytes=GIB)).cache_bytes == 0


def test_gpu_gives_what_is_left_to_the_cache() -> None:
    memory = DeviceMemory(free_bytes=4 * GIB, gpu_total_bytes=8 * GIB)
    found = need("gpt2", memory, max_num_seqs=100_000, gpu_memory_utilization=0.75)
    assert found.overhead_bytes == model_memory.GPU_CONTEXT_BYTES
    assert found.cache_bytes == pytest.approx(2 * GIB - found.weight_bytes - GIB, rel=0.001)


def test_float8_halves_the_cache() -> None:
    half, full = (need("llama-3.1-8b", kv_dtype=dtype, max_num_seqs=1) for dtype in ("fp8", "auto"))
    assert 2 * half.cache_bytes == full.cache_bytes


def test_budget_is_as_set_or_what_is_free() -> None:
    assert memory_budget(CatalogSettings(max_loaded_memory="3GiB"), MACHINE) == 3 * GIB
    assert memory_budget(CatalogSettings(), MACHINE) == 64 * GIB


@pytest.mark.parametrize(
    ("device", "gpu_bytes", "expected"),
    [
        ("auto", None, DeviceMemory(free_bytes=5)),
        ("auto", 7, DeviceMemory(free_bytes=7, gpu_total_bytes=9)),
        ("cpu", 7, DeviceMemory(free_bytes=5)),
        ("cuda", 7, DeviceMemory(free_bytes=7, gpu_total_bytes=9)),
    ],
)
def test_memory_is_that_of_the_device(
    device: Any, gpu_bytes: int | None, expected: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = None if gpu_bytes is None else GpuMemory(free_bytes=gpu_bytes, total_bytes=9)
    monkeypatch.setattr(model_memory, "gpu_memory", lambda: gpu)
    monkeypatch.setattr(machine, "free_bytes", lambda: 5)
    assert device_memory(EngineSettings(device=device)) == expected
