"""How much memory an engine for a model will take, said before it is started, and how much all of them may take.

Repeats the engine's own sums (batching.kv_cache, batching.engine) without torch; a test holds them equal. Knows no
processes: what is loaded, and what goes, is the supervisor's business.
"""

from __future__ import annotations

import msgspec

from contracts.model_catalog import ModelProfile
from contracts.settings import CatalogSettings, EngineSettings
from contracts.sizes import format_bytes, parse_bytes
from service.gpu_memory import gpu_memory
from service.model_facts import facts_of
from service.ready_models import ModelFacts

MIB = 1024 * 1024
PROCESS_BYTES = 512 * MIB
"""Of an engine beside its weights and cache: 335 MiB of its own and 160 MiB of libraries, which engines share. Measured
in smaps_rollup with the embedded model and with one of 135 M parameters, once they were ready (2 vCPU Xeon, torch 2.13
on the CPU, 2026-11-21). An engine that has to compile its kernels first, once per machine, takes 200 MiB more."""
GPU_CONTEXT_BYTES = 1024 * MIB
"""Of GPU memory beside weights and cache: the driver's context, torch's kernels and the working space of a step, which
the engine measures when it has loaded the model. Assumed, not measured."""
MIN_DEFAULT_CACHE_BYTES = 512 * MIB
"""batching.kv_cache.MIN_DEFAULT_CPU_BYTES."""


class MemoryNeed(msgspec.Struct, frozen=True, kw_only=True):
    """What one loaded model takes at most; pages of the cache are taken only as it fills."""

    weight_bytes: int
    cache_bytes: int
    overhead_bytes: int
    """The process, with on a CPU the packed copy of an embedding that is the output matrix as well."""
    stated_bytes: int | None = None
    """All in all, where the operator has said so; the other fields are 0 then."""

    @property
    def total_bytes(self) -> int:
        """What to hold against the budget."""
        if self.stated_bytes is not None:
            return self.stated_bytes
        return self.weight_bytes + self.cache_bytes + self.overhead_bytes

    def explain(self, left_bytes: int | None = None) -> str:
        """The sum as a clause for a message, with what the budget has left where that is given."""
        text = f"needs {format_bytes(self.total_bytes)}"
        if self.stated_bytes is not None:
            text += " as declared"
        else:
            parts = {"weights": self.weight_bytes, "KV cache": self.cache_bytes, "process": self.overhead_bytes}
            text += ": " + " + ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
        return text if left_bytes is None else f"{text}; the budget has {format_bytes(max(0, left_bytes))} left"


class DeviceMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is free now where models are loaded."""

    free_bytes: int
    gpu_total_bytes: int | None = None
    """All that the GPU has; None: models run on the CPU."""

    @property
    def is_gpu(self) -> bool:
        return self.gpu_total_bytes is not None


def device_memory(settings: EngineSettings) -> DeviceMemory:
    """The first GPU that processes of ours see, where models run there, else the memory of the machine or container."""
    gpu = None if settings.device == "cpu" else gpu_memory()
    if gpu is not None:
        return DeviceMemory(free_bytes=gpu.free_bytes, gpu_total_bytes=gpu.total_bytes)
    from batching.machine import free_bytes  # reads files of the kernel; imports no torch

    return DeviceMemory(free_bytes=free_bytes())


def memory_budget(settings: CatalogSettings, memory: DeviceMemory) -> int:
    """Bytes that all loaded models may take together: as set, else what was free when `memory` was looked at."""
    return memory.free_bytes if settings.max_loaded_memory is None else parse_bytes(settings.max_loaded_memory)


def estimate_memory(profile: ModelProfile, common: EngineSettings, memory: DeviceMemory) -> MemoryNeed | None:
    """What an engine for the model would take now; None for a hub name of unknown size that is not on this machine.

    `memory` is what is free before it is loaded. Raises ModelNotUsable where files are there but broken.
    """
    if profile.memory_bytes is not None:
        return MemoryNeed(weight_bytes=0, cache_bytes=0, overhead_bytes=0, stated_bytes=profile.memory_bytes)
    facts = facts_of(profile)
    return None if facts is None else need_of(facts, profile.engine_settings(common), memory)


def need_of(facts: ModelFacts, settings: EngineSettings, memory: DeviceMemory) -> MemoryNeed:
    """The engine's sums for a model of these facts."""
    item_bytes = _item_bytes(settings.dtype, is_half=facts.is_half)
    weight_bytes = facts.num_weights * item_bytes + facts.other_bytes
    left = msgspec.structs.replace(memory, free_bytes=max(0, memory.free_bytes - weight_bytes))
    return MemoryNeed(
        weight_bytes=weight_bytes,
        cache_bytes=_cache_bytes(facts, settings, weight_bytes, left),
        overhead_bytes=GPU_CONTEXT_BYTES if memory.is_gpu else PROCESS_BYTES + facts.num_shared * item_bytes,
    )


def default_cache_bytes(weight_bytes: int, memory: DeviceMemory, utilization: float) -> int:
    """What the engine gives the KV cache unless told: batching.kv_cache.default_cache_bytes, and on a GPU
    batching.cache_plan, where GPU_CONTEXT_BYTES stands for what the engine measures.
    """
    if memory.gpu_total_bytes is not None:
        unused = memory.gpu_total_bytes - int(memory.gpu_total_bytes * utilization)
        return max(0, memory.free_bytes - unused - GPU_CONTEXT_BYTES)
    return min(max(MIN_DEFAULT_CACHE_BYTES, weight_bytes), memory.free_bytes // 2)


class CacheRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The KV cache that an engine would make."""

    num_blocks: int
    block_bytes: int
    block_size: int
    """Tokens."""
    model_len: int
    """The longest request."""

    @property
    def num_tokens(self) -> int:
        return self.num_blocks * self.block_size


def cache_room(facts: ModelFacts, settings: EngineSettings, weight_bytes: int, left: DeviceMemory) -> CacheRoom | None:
    """Whole blocks within the size wanted, and no more than a full batch of full-length sequences can use.

    `left` is what is free once the weights are there. None where nobody knows what a token takes.
    """
    if facts.num_kv_values is None:
        return None
    is_half = _item_bytes(settings.dtype, is_half=facts.is_half) == 2
    block_bytes = facts.num_kv_values * _item_bytes(settings.kv_dtype, is_half=is_half) * settings.block_size
    model_len = settings.max_model_len or facts.window
    most_useful = settings.max_num_seqs * -(-model_len // settings.block_size)
    wanted = _wanted_bytes(settings, weight_bytes, left)
    return CacheRoom(
        num_blocks=min(wanted // block_bytes, most_useful),
        block_bytes=block_bytes,
        block_size=settings.block_size,
        model_len=model_len,
    )


def _cache_bytes(facts: ModelFacts, settings: EngineSettings, weight_bytes: int, left: DeviceMemory) -> int:
    room = cache_room(facts, settings, weight_bytes, left)
    return _wanted_bytes(settings, weight_bytes, left) if room is None else room.num_blocks * room.block_bytes


def _wanted_bytes(settings: EngineSettings, weight_bytes: int, left: DeviceMemory) -> int:
    if settings.kv_cache_memory is not None:
        return parse_bytes(settings.kv_cache_memory)
    return default_cache_bytes(weight_bytes, left, settings.gpu_memory_utilization)


def _item_bytes(dtype: str, *, is_half: bool) -> int:
    """Bytes of a number; auto keeps 16 bits and computes everything else in 32."""
    if dtype == "fp8":
        return 1
    return 2 if dtype == "bfloat16" or (dtype == "auto" and is_half) else 4
