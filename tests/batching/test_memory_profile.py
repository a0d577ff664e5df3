"""The largest step is run once for loading and once for measuring, on a cache of a few blocks, and leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from batching import engine
from batching.attention.paged_layer import LayerProbe
from batching.cache_plan import CacheDemand
from batching.engine import allocate_cache
from batching.kv_cache import token_bytes
from batching.memory_profile import largest_plan, measure, measure_model
from batching.model_loader import load_model, no_progress
from contracts.errors import NotEnoughMemory
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels

GIB = 2**30
MIB = 2**20


class FakeGauge:
    """A device of 24 GiB with 9 in use, on which a step loads 1 GiB of kernels once and takes `step_bytes`."""

    def __init__(self, step_bytes: int = 2 * GIB) -> None:
        self.used = 9 * GIB
        self.peak = 0
        self.steps = 0
        self._step_bytes = step_bytes

    def step(self) -> None:
        self.used += GIB if self.steps == 0 else 0
        self.steps += 1
        self.peak = self.used + self._step_bytes

    def release(self) -> None:
        self.peak = self.used

    def total_bytes(self) -> int:
        return 24 * GIB

    def free_bytes(self) -> int:
        return 24 * GIB - self.used

    def held_bytes(self) -> int:
        return self.used

    def peak_bytes(self) -> int:
        return self.peak


def test_second_run_is_the_peak_and_what_the_first_one_left_is_in_use() -> None:
    gauge = FakeGauge()
    use = measure(gauge.step, gauge, 0.9)
    assert (use.used_bytes, use.peak_bytes, use.total_bytes, use.utilization) == (10 * GIB, 2 * GIB, 24 * GIB, 0.9)
    assert gauge.steps == 2


def test_step_that_does_not_fit_is_refused_with_the_flags_that_make_it_smaller() -> None:
    def run() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(NotEnoughMemory, match=r"24\.0 GiB 15\.0 GiB are free\. Lower --max-num-batched-tokens or"):
        measure(run, FakeGauge(), 0.9)


@pytest.mark.parametrize(
    ("num_tokens", "max_num_seqs", "lens"),
    [
        (40, 5, [1, 1, 1, 7, 30]),
        (5, 5, [1, 1, 1, 1, 1]),
        (3, 5, [1, 1, 1]),
        (20, 1, [20]),
        (1000, 2, [30, 30]),
    ],
)
def test_budget_is_filled_and_every_row_samples_at_the_end_of_a_full_context(
    num_tokens: int, max_num_seqs: int, lens: list[int]
) -> None:
    demand = CacheDemand(block_bytes=1024, block_size=4, max_model_len=30, max_num_seqs=max_num_seqs)
    plan = largest_plan(num_tokens, demand)
    assert [len(row.token_ids) for row in plan.sequences] == lens
    assert {row.context_len for row in plan.sequences} == {30}
    assert {(row.is_sampling, *set(row.block_ids), len(row.block_ids)) for row in plan.sequences} == {(True, 0, 8)}
    assert (plan.num_tokens, plan.num_decodes) == (sum(lens), lens.count(1))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_oss"])
def test_a_real_model_runs_its_largest_step_and_is_left_as_it_was(tiny_models: TinyModels, family: str) -> None:
    settings = engine_settings(tiny_models.reference(family).path, max_num_batched_tokens=50, max_num_seqs=6)
    loaded = load_model(settings, no_progress)
    demand = CacheDemand(block_bytes=1024, block_size=4, max_model_len=loaded.max_model_len, max_num_seqs=6)
    use = measure_model(loaded, settings, demand, torch.float32, FakeGauge())
    assert (use.used_bytes, use.peak_bytes) == (9 * GIB, 0)
    assert {type(getattr(layer.module, "paged_layer", None)) for layer in loaded.layers} == {LayerProbe}


def sized_as_on_a_gpu(path: Path, monkeypatch: pytest.MonkeyPatch, gauge: FakeGauge, **settings: Any) -> Any:
    """The pool that allocate_cache makes for a model which says it is on a GPU; its tensors are on the CPU."""
    loaded = load_model(engine_settings(path, **settings), no_progress)

    def measured(_: object, *arguments: Any) -> Any:
        return measure_model(loaded, *arguments)

    monkeypatch.setattr(engine, "measure_model", measured)
    monkeypatch.setattr(engine, "CudaGauge", lambda device: gauge)
    monkeypatch.setattr(engine, "KVCachePool", lambda shapes, num_blocks, block_size, **_: (num_blocks, block_size))
    fields = {name: getattr(loaded, name) for name in loaded.__struct_fields__} | {"device": torch.device("cuda")}
    return allocate_cache(engine_settings(path, **settings), type(loaded)(**fields)), loaded


def test_engine_gives_the_cache_of_a_gpu_what_is_left(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = FakeGauge()
    gauge.used = int(24 * GIB * 0.5) - MIB
    sizes = {"kv_cache_memory": None, "gpu_memory_utilization": 0.5, "max_num_seqs": 13}
    path = tiny_models.reference("llama").path
    (num_blocks, block_size), loaded = sized_as_on_a_gpu(path, monkeypatch, gauge, **sizes)
    assert (num_blocks + 1) * block_size * token_bytes(loaded.layer_shapes, torch.float32) == MIB


def test_engine_refuses_what_does_not_fit_on_a_gpu(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = FakeGauge()
    gauge.used = int(24 * GIB * 0.9)
    path = tiny_models.reference("llama").path
    with pytest.raises(NotEnoughMemory, match=r"No context fits: take a lower --max-model-len"):
        sized_as_on_a_gpu(path, monkeypatch, gauge, kv_cache_memory=None)
