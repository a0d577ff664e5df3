"""Whether weights and KV cache fit, and how many requests of full length the cache holds: the engine's sums."""

from __future__ import annotations

import msgspec

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from contracts.settings import EngineSettings
from contracts.sizes import format_bytes
from service.model_facts import facts_of
from service.model_memory import CacheRoom, DeviceMemory, MemoryNeed, cache_room, need_of
from service.terminal.examination import found


def check_memory(profile: ModelProfile, common: EngineSettings, memory: DeviceMemory) -> Finding:
    """For what is free on the device now."""
    facts = facts_of(profile)
    if facts is None:
        return found("skipped", f"Nobody knows the size of {profile.model} before it is fetched.")
    settings = profile.engine_settings(common)
    need = need_of(facts, settings, memory)
    left = msgspec.structs.replace(memory, free_bytes=max(0, memory.free_bytes - need.weight_bytes))
    room = cache_room(facts, settings, need.weight_bytes, left)
    place = "GPU" if memory.is_gpu else "machine"
    finding = _judge(need, room, settings, memory, place)
    evidence = {
        "weight_bytes": need.weight_bytes,
        "cache_bytes": need.cache_bytes,
        "overhead_bytes": need.overhead_bytes,
        "free_bytes": memory.free_bytes,
        "max_model_len": None if room is None else room.model_len,
        "cache_tokens": None if room is None else room.num_tokens,
        "full_length_requests": None if room is None else room.num_tokens // room.model_len,
    }
    return msgspec.structs.replace(finding, evidence=evidence)


def _judge(
    need: MemoryNeed, room: CacheRoom | None, settings: EngineSettings, memory: DeviceMemory, place: str
) -> Finding:
    free = f"the {place} has {format_bytes(memory.free_bytes)} free"
    least = need.weight_bytes + need.overhead_bytes
    if least > memory.free_bytes:
        smaller = "" if settings.dtype == "bfloat16" else "--dtype bfloat16, or "
        return found(
            "failed",
            f"Weights and process alone need {format_bytes(least)}, but {free}.",
            f"Take {smaller}a smaller model, or free memory.",
        )
    if room is None:
        return found("ok", f"It {need.explain()}; {free}. What a token costs is not known for this family.")
    if room.num_tokens < room.model_len:
        return _too_small(room, settings)
    if need.total_bytes > memory.free_bytes:
        fitting = memory.free_bytes - least
        is_useful = fitting // room.block_bytes * room.block_size >= room.model_len
        lower = f"--kv-cache-memory to {fitting // 2**20}MiB" if is_useful else "--max-model-len"
        return found(
            "failed" if memory.is_gpu else "warning",
            f"It {need.explain()}, but {free}.",
            f"Lower {lower}, or free memory.",
        )
    num_full = room.num_tokens // room.model_len
    requests = f"{num_full} request{'' if num_full == 1 else 's'} of {room.model_len:,} tokens"
    return found("ok", f"It {need.explain()}; {free}. The cache holds {requests} at once.")


def _too_small(room: CacheRoom, settings: EngineSettings) -> Finding:
    needed = -(-room.model_len // settings.block_size) * room.block_bytes
    raised = f"--kv-cache-memory {-(-needed // 2**20)}MiB"
    lower = f"--max-model-len {room.num_tokens}" if room.num_tokens else None
    return found(
        "failed",
        f"The KV cache holds {room.num_tokens:,} tokens, but one request of full length has {room.model_len:,}.",
        f"Give {raised}{f' or {lower}' if lower else ''}.",
    )
