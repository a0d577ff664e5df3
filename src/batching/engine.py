"""One engine: a scheduler and a runner brought together from settings. Knows nothing of threads or event loops."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import torch

from batching.forward import select_forward
from batching.kv_cache import KVCachePool, default_cache_bytes, num_blocks_within, token_bytes
from batching.model_loader import LoadedModel, ProgressCallback, load_model
from batching.model_runner import ModelRunner
from batching.sampler import Sampler
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, SchedulerOutput, StepOutput
from batching.warm_up import warm_up
from contracts.engine import EngineInfo, EngineStats
from contracts.settings import EngineSettings
from contracts.sizes import parse_bytes


class Runner(Protocol):
    """What executes a plan: a ModelRunner, or a fake in tests."""

    def execute(self, plan: SchedulerOutput) -> StepOutput: ...


class EngineCore(msgspec.Struct, kw_only=True):
    """The parts of a started engine; the caller drives schedule, execute, commit."""

    info: EngineInfo
    scheduler: Scheduler
    runner: Runner


def build_engine(settings: EngineSettings, on_progress: ProgressCallback) -> EngineCore:
    """Load the model, size the KV cache, warm up. Blocks for seconds; raises StartupError with the reason."""
    torch.set_num_threads(settings.num_threads or os.cpu_count() or 1)
    loaded = load_model(settings, on_progress)
    on_progress("allocating the KV cache", None)
    pool = allocate_cache(settings, loaded)
    info = describe(settings, loaded, pool)
    on_progress("preparing the forward pass", None)
    forward = select_forward(loaded, pool, lambda: load_model(settings, on_progress))
    sampler = Sampler(loaded.vocab_size, frozenset(loaded.eos_token_ids), loaded.device)
    runner = ModelRunner(forward, pool, sampler)
    on_progress("warming up", None)
    warm_up(runner, pool, loaded.max_model_len)
    return EngineCore(info=info, scheduler=Scheduler(scheduler_config(settings, info)), runner=runner)


def allocate_cache(settings: EngineSettings, loaded: LoadedModel) -> KVCachePool:
    """As many blocks as the settings or the free memory allow, and no more than a full batch can use."""
    dtype = loaded.dtype if settings.kv_cache_dtype == "auto" else getattr(torch, settings.kv_cache_dtype)
    block_bytes = token_bytes(loaded.layer_shapes, dtype) * settings.block_size
    if settings.kv_cache_memory is None:
        cache_bytes = default_cache_bytes(loaded.weight_bytes, loaded.device)
    else:
        cache_bytes = parse_bytes(settings.kv_cache_memory)
    num_blocks = num_blocks_within(cache_bytes, block_bytes, loaded.max_model_len, settings.block_size)
    most_useful = settings.max_num_seqs * -(-loaded.max_model_len // settings.block_size)
    return KVCachePool(
        loaded.layer_shapes,
        min(num_blocks, most_useful),
        settings.block_size,
        dtype=dtype,
        device=loaded.device,
    )


def describe(settings: EngineSettings, loaded: LoadedModel, pool: KVCachePool) -> EngineInfo:
    """What this engine serves, for the model card, the ready panel and admission."""
    dtype = str(loaded.dtype).removeprefix("torch.")
    identity = f"{loaded.config.to_json_string(use_diff=False)}{dtype}{loaded.device.type}{torch.__version__}"
    return EngineInfo(
        model_name=loaded.name,
        model_path=str(loaded.path),
        architecture=type(loaded.model).__name__,
        device=str(loaded.device),
        dtype=dtype,
        vocab_size=loaded.vocab_size,
        max_model_len=loaded.max_model_len,
        eos_token_ids=loaded.eos_token_ids,
        sampling_defaults=loaded.sampling_defaults,
        block_size=pool.block_size,
        num_blocks=pool.num_blocks,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=max(settings.max_num_batched_tokens, settings.max_num_seqs),
        num_parameters=loaded.num_parameters,
        fingerprint=f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
    )


def scheduler_config(settings: EngineSettings, info: EngineInfo) -> SchedulerConfig:
    """The scheduler's limits; the budget is never below max_num_seqs, so that every decode fits in a step."""
    return SchedulerConfig(
        num_blocks=info.num_blocks,
        block_size=info.block_size,
        max_model_len=info.max_model_len,
        vocab_size=info.vocab_size,
        eos_token_ids=frozenset(info.eos_token_ids),
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.max_num_batched_tokens,
        max_prefill_tokens_while_decoding=settings.max_prefill_tokens_while_decoding,
        max_queued_requests=settings.max_queued_requests,
        max_queued_tokens=settings.max_queued_tokens,
        priority_ageing_s=settings.priority_ageing_s,
        enable_prefix_caching=settings.enable_prefix_caching,
    )


def execute_isolated(runner: Runner, plan: SchedulerOutput, log: Callable[..., object]) -> StepOutput:
    """Execute a plan; if that raises, execute its rows one by one, so that only those that raise fail.

    Computing a row twice is harmless: it writes the same K and V to the same slots.
    """
    try:
        return runner.execute(plan)
    except Exception as error:
        log("step_failed", step_id=plan.step_id, num_sequences=len(plan.sequences), error=repr(error))
        started_s = time.perf_counter()
        sampled = [_execute_alone(runner, plan, index) for index in range(len(plan.sequences))]
        return StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=time.perf_counter() - started_s)


def _execute_alone(runner: Runner, plan: SchedulerOutput, index: int) -> SampledToken | None:
    row = plan.sequences[index]
    alone = SchedulerOutput(
        step_id=plan.step_id,
        sequences=[row],
        num_tokens=len(row.token_ids),
        num_decodes=int(index < plan.num_decodes),
        blocks_to_clear=plan.blocks_to_clear if index == 0 else [],
    )
    try:
        return runner.execute(alone).sampled[0]
    except Exception as error:
        return SampledToken(token_id=0, error=f"the model failed on this request ({type(error).__name__})")


def snapshot(scheduler: Scheduler, *, is_alive: bool, is_draining: bool) -> EngineStats:
    """The public counters of a scheduler."""
    counters = scheduler.counters
    return EngineStats(
        num_running=scheduler.num_running,
        num_waiting=scheduler.num_waiting,
        num_waiting_tokens=scheduler.waiting.num_tokens,
        num_free_blocks=scheduler.pool.num_free_blocks,
        num_cached_blocks=scheduler.pool.num_cached_blocks,
        num_blocks=scheduler.pool.num_blocks,
        num_steps=counters.num_steps,
        num_requests=counters.num_requests,
        num_finished=counters.num_finished,
        num_aborted=counters.num_aborted,
        num_failed=counters.num_failed,
        num_rejected=scheduler.admission.num_rejected,
        num_preemptions=counters.num_preemptions,
        num_prompt_tokens=counters.num_prompt_tokens,
        num_cached_tokens=counters.num_cached_tokens,
        num_generated_tokens=counters.num_generated_tokens,
        num_scheduled_seqs=counters.num_scheduled_seqs,
        step_time_s=counters.step_time_s,
        is_alive=is_alive,
        is_draining=is_draining,
    )
