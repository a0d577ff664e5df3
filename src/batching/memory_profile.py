"""How much memory the largest step takes on a device: it is run once, on a cache of a few blocks, and measured.

Knows nothing of what the numbers are for: cache_plan makes blocks of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Protocol

import torch

from batching.attention import select_backend
from batching.attention.torch_backend import TorchBackend
from batching.cache_plan import CacheDemand, DeviceUse
from batching.forward import ATTENTION_PROBE_LEN, GenericForward, proven_backend
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel
from batching.model_runner import ModelRunner
from batching.sampler import Sampler
from batching.step import ScheduledSequence, SchedulerOutput
from contracts.errors import NotEnoughMemory
from contracts.sampling import SamplingParams
from contracts.settings import EngineSettings
from contracts.sizes import format_bytes

EVERY_OPTION = SamplingParams(temperature=0.8, top_k=5, top_p=0.9, min_p=0.01, presence_penalty=0.1, num_logprobs=1)
"""Of a row that makes the sampler do everything it can."""


class MemoryGauge(Protocol):
    """The memory of one device. Fakes stand in for it in tests."""

    def release(self) -> None:
        """Give back what is cached and not used, and begin a new peak."""
        ...

    def total_bytes(self) -> int: ...

    def free_bytes(self) -> int:
        """Of the whole device, other processes counted."""
        ...

    def held_bytes(self) -> int:
        """By this process now, what its allocator caches included."""
        ...

    def peak_bytes(self) -> int:
        """The most that held_bytes was since the last release; waits for the device."""
        ...


class CudaGauge:
    """torch's own counters. It counts what the allocator reserved, for that is what others cannot have."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def release(self) -> None:
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def total_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self._device)[1])

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self._device)[0])

    def held_bytes(self) -> int:
        return int(torch.cuda.memory_reserved(self._device))

    def peak_bytes(self) -> int:
        torch.cuda.synchronize(self._device)
        return int(torch.cuda.max_memory_reserved(self._device))


def measure(run: Callable[[], object], gauge: MemoryGauge, utilization: float) -> DeviceUse:
    """What the device holds without `run`, and how much more while it runs.

    It runs twice, and the second time counts: the first one loads kernels and workspaces, which stay and are counted
    as used. Raises NotEnoughMemory where it does not fit.
    """
    gauge.release()
    try:
        run()
        gauge.release()
        held = gauge.held_bytes()
        run()
    except torch.OutOfMemoryError as error:
        gauge.release()
        raise NotEnoughMemory(
            f"the largest step does not fit beside the weights: of the GPU's {format_bytes(gauge.total_bytes())} "
            f"{format_bytes(gauge.free_bytes())} are free. Lower --max-num-batched-tokens or --max-num-seqs, serve a "
            "smaller model, or free memory."
        ) from error
    peak = max(0, gauge.peak_bytes() - held)
    gauge.release()
    total = gauge.total_bytes()
    return DeviceUse(total_bytes=total, used_bytes=total - gauge.free_bytes(), peak_bytes=peak, utilization=utilization)


def largest_plan(num_tokens: int, demand: CacheDemand) -> SchedulerOutput:
    """The step that takes most: every sequence samples at the end of a full context, and chunks fill the budget.

    All of them write to block 0, which is all the cache it needs; what it computes is nonsense.
    """
    num_rows = min(demand.max_num_seqs, num_tokens)
    lens = [1] * num_rows
    left = num_tokens - num_rows
    for row in reversed(range(num_rows)):
        added = min(left, demand.max_model_len - 1)
        lens[row] += added
        left -= added
    return SchedulerOutput(
        step_id=0,
        sequences=[_full_context(row, length, demand) for row, length in enumerate(lens)],
        num_tokens=sum(lens),
        num_decodes=lens.count(1),
    )


def _full_context(row: int, num_tokens: int, demand: CacheDemand) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=row,
        token_ids=[0] * num_tokens,
        start=demand.max_model_len - num_tokens,
        block_ids=[0] * demand.full_length_blocks,
        is_sampling=True,
        sampling=EVERY_OPTION,
        seed=row,
        num_output_tokens=1,
        prompt_token_ids=[0, 1],
        output_token_ids=[1],
    )


def measure_model(
    loaded: LoadedModel, settings: EngineSettings, demand: CacheDemand, dtype: torch.dtype, gauge: MemoryGauge
) -> DeviceUse:
    """The device's use by a loaded model whose cache is to be of `dtype`; leaves the model as it was.

    transformers' own forward pass is what runs: it takes at least as much as a fused one.
    """
    num_blocks = -(-min(ATTENTION_PROBE_LEN + 1, demand.max_model_len) // demand.block_size)
    pool = KVCachePool(loaded.layer_shapes, num_blocks, demand.block_size, dtype=dtype, device=loaded.device)
    modules: list[Any] = [layer.module for layer in loaded.layers]
    hung = [module.paged_layer for module in modules]
    try:
        runner = _runner(loaded, pool)
        plan = largest_plan(max(settings.max_num_batched_tokens, settings.max_num_seqs), demand)
        return measure(lambda: runner.execute(plan), gauge, settings.gpu_memory_utilization)
    finally:
        for module, layer in zip(modules, hung, strict=True):
            module.paged_layer = layer


@torch.inference_mode()
def _runner(loaded: LoadedModel, pool: KVCachePool) -> ModelRunner:
    backend = select_backend(loaded.device)
    if loaded.device.type != "cpu" and not isinstance(backend, TorchBackend):
        backend = proven_backend(loaded, pool, backend)
    sampler = Sampler(loaded.vocab_size, frozenset(loaded.eos_token_ids), loaded.device)
    return ModelRunner(GenericForward(loaded, pool, backend), pool, sampler)
