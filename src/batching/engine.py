"""One engine: a scheduler and a runner brought together from settings. Knows nothing of threads or event loops."""

from __future__ import annotations

import hashlib

import msgspec
import torch

from batching.cache_plan import CacheDemand, plan_blocks
from batching.device_ops import DeviceOps
from batching.device_runner import DeviceRunner
from batching.device_start import limits_of, select_ops, start_device_runner
from batching.forward import is_whole, select_forward
from batching.isolation import Runner
from batching.kv_cache import (
    KVCachePool,
    check_cache_fits,
    default_cache_bytes,
    free_memory_bytes,
    num_blocks_within,
    token_bytes,
)
from batching.kv_dtype import kv_dtype
from batching.machine import num_cores
from batching.memory_profile import CudaGauge, measure_model
from batching.model_loader import LoadedModel, ProgressCallback, load_model
from batching.model_runner import ModelRunner
from batching.sampler import Sampler
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step_pipeline import PipelinedRunner
from batching.step_timer import Preparation
from batching.threads import default_num_threads, use_threads
from batching.warm_up import warm_up
from contracts.engine import EngineInfo, EngineStats
from contracts.settings import EngineSettings
from contracts.sizes import parse_bytes


class EngineCore(msgspec.Struct, kw_only=True):
    """The parts of a started engine; the caller drives schedule, execute, commit."""

    info: EngineInfo
    scheduler: Scheduler
    runner: Runner
    warm_up_step_s: float | None = None
    """The longest step before the first request; None: there was none."""
    preparation: Preparation | None = None
    """What the runner says while a step takes longer than its work explains."""
    forward_name: str = ""
    """The class of the forward pass that was chosen."""


def build_engine(
    settings: EngineSettings, on_progress: ProgressCallback, device_ops: DeviceOps | None = None
) -> EngineCore:
    """Load the model, size the KV cache, warm up. Blocks for seconds; raises StartupError with the reason.

    With `device_ops` the steps run over device rows through these operations, as on CUDA through those in Triton.
    """
    use_threads(settings.num_threads or num_cores())
    loaded = load_model(settings, on_progress)
    use_threads(settings.num_threads or default_num_threads(loaded.weight_bytes))
    on_progress("allocating the KV cache", None)
    ops = device_ops or select_ops(loaded.device)
    pool = allocate_cache(settings, loaded, has_trash_block=ops is not None)
    info = describe(settings, loaded, pool)
    on_progress("preparing the forward pass", None)
    runner, warm_up_step_s, forward_name = start_runner(settings, loaded, pool, ops, on_progress)
    scheduler = Scheduler(scheduler_config(settings, info, is_pipelined=isinstance(runner, PipelinedRunner)))
    return EngineCore(
        info=info,
        scheduler=scheduler,
        runner=runner,
        warm_up_step_s=warm_up_step_s,
        preparation=runner.graphs if isinstance(runner, DeviceRunner) else None,
        forward_name=forward_name,
    )


def start_runner(
    settings: EngineSettings,
    loaded: LoadedModel,
    pool: KVCachePool,
    ops: DeviceOps | None,
    on_progress: ProgressCallback,
) -> tuple[Runner, float, str]:
    """(runner, seconds of its longest warm-up step, class of its forward pass): over device rows where that works."""

    def reload() -> LoadedModel:
        return load_model(settings, on_progress)

    if ops is not None:
        started = start_device_runner(loaded, pool, ops, settings.max_num_seqs, reload)
        if started is not None:
            on_progress("warming up", None)
            return started.runner, warm_up(started.runner, pool, loaded.max_model_len), started.forward_name
        if not is_whole(loaded):
            loaded = reload()
    forward = select_forward(loaded, pool, reload)
    runner = ModelRunner(forward, pool, Sampler(loaded.vocab_size, frozenset(loaded.eos_token_ids), loaded.device))
    on_progress("warming up", None)
    return runner, warm_up(runner, pool, loaded.max_model_len), type(forward).__name__


def allocate_cache(settings: EngineSettings, loaded: LoadedModel, *, has_trash_block: bool = False) -> KVCachePool:
    """As many blocks as the settings or the free memory allow, and no more than a full batch can use."""
    dtype = kv_dtype(settings.kv_dtype, loaded.dtype)
    demand = CacheDemand(
        block_bytes=token_bytes(loaded.layer_shapes, dtype) * settings.block_size,
        block_size=settings.block_size,
        max_model_len=loaded.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        is_fp8=settings.kv_dtype == "fp8",
    )
    wanted = None if settings.kv_cache_memory is None else parse_bytes(settings.kv_cache_memory)
    if loaded.device.type == "cuda":
        use = measure_model(loaded, settings, demand, dtype, CudaGauge(loaded.device))
        if has_trash_block:
            kept = limits_of(loaded, settings.max_num_seqs).num_bytes(settings.block_size)
            use = msgspec.structs.replace(use, used_bytes=use.used_bytes + kept)
        num_blocks = plan_blocks(use, demand, wanted)
    else:
        num_blocks = _blocks_in_memory(loaded, demand, wanted)
    return KVCachePool(
        loaded.layer_shapes,
        num_blocks,
        settings.block_size,
        dtype=dtype,
        device=loaded.device,
        has_trash_block=has_trash_block,
    )


def _blocks_in_memory(loaded: LoadedModel, demand: CacheDemand, wanted: int | None) -> int:
    """On a CPU, whose steps take next to nothing beside the weights."""
    cache_bytes = default_cache_bytes(loaded.weight_bytes, loaded.device) if wanted is None else wanted
    num_blocks = num_blocks_within(cache_bytes, demand.block_bytes, demand.max_model_len, demand.block_size)
    num_blocks = min(num_blocks, demand.most_useful_blocks)
    check_cache_fits(num_blocks * demand.block_bytes, free_memory_bytes(loaded.device))
    return num_blocks


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


def scheduler_config(settings: EngineSettings, info: EngineInfo, *, is_pipelined: bool = False) -> SchedulerConfig:
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
        num_draft_tokens=settings.num_speculative_tokens,
        max_steps_in_flight=2 if is_pipelined else 1,
    )


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
        num_rate_limited=scheduler.limits.num_refused,
        num_preemptions=counters.num_preemptions,
        num_prompt_tokens=counters.num_prompt_tokens,
        num_cached_tokens=counters.num_cached_tokens,
        num_generated_tokens=counters.num_generated_tokens,
        num_scheduled_seqs=counters.num_scheduled_seqs,
        num_drafts=counters.num_drafts,
        num_accepted_drafts=counters.num_accepted_drafts,
        step_time_s=counters.step_time_s,
        num_out_of_memory=counters.num_out_of_memory,
        num_consecutive_oom=scheduler.token_budget.num_consecutive_oom,
        num_integrity_faults=counters.num_integrity_faults,
        is_alive=is_alive,
        is_draining=is_draining,
    )
