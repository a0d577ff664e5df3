"""One engine: a scheduler and a runner brought together from settings. Knows nothing of threads or event loops."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import torch

from batching.device_ops import DeviceOps
from batching.device_start import select_ops, start_device_runner
from batching.forward import is_whole, select_forward
from batching.kv_cache import (
    KVCachePool,
    check_cache_fits,
    default_cache_bytes,
    free_memory_bytes,
    num_blocks_within,
    token_bytes,
)
from batching.machine import num_cores
from batching.model_loader import LoadedModel, ProgressCallback, load_model
from batching.model_runner import ModelRunner
from batching.sampler import Sampler
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, SchedulerOutput, StepOutput, halved_chunk, halved_rows
from batching.threads import default_num_threads, use_threads
from batching.warm_up import warm_up
from contracts.engine import EngineInfo, EngineStats
from contracts.settings import EngineSettings
from contracts.sizes import parse_bytes

CPU_ALLOCATION_FAILED = "DefaultCPUAllocator: can't allocate memory"
"""How torch 2.13 words it, in a plain RuntimeError."""


class Runner(Protocol):
    """What executes a plan: a ModelRunner, or a fake in tests."""

    def execute(self, plan: SchedulerOutput) -> StepOutput: ...


class EngineCore(msgspec.Struct, kw_only=True):
    """The parts of a started engine; the caller drives schedule, execute, commit."""

    info: EngineInfo
    scheduler: Scheduler
    runner: Runner
    warm_up_step_s: float | None = None
    """The longest step before the first request; None: there was none."""
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
    scheduler = Scheduler(scheduler_config(settings, info))
    return EngineCore(
        info=info,
        scheduler=scheduler,
        runner=runner,
        warm_up_step_s=warm_up_step_s,
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
    dtype = loaded.dtype if settings.kv_cache_dtype == "auto" else getattr(torch, settings.kv_cache_dtype)
    block_bytes = token_bytes(loaded.layer_shapes, dtype) * settings.block_size
    if settings.kv_cache_memory is None:
        cache_bytes = default_cache_bytes(loaded.weight_bytes, loaded.device)
    else:
        cache_bytes = parse_bytes(settings.kv_cache_memory)
    num_blocks = num_blocks_within(cache_bytes, block_bytes, loaded.max_model_len, settings.block_size)
    most_useful = settings.max_num_seqs * -(-loaded.max_model_len // settings.block_size)
    num_blocks = min(num_blocks, most_useful)
    check_cache_fits(num_blocks * block_bytes, free_memory_bytes(loaded.device))
    return KVCachePool(
        loaded.layer_shapes,
        num_blocks,
        settings.block_size,
        dtype=dtype,
        device=loaded.device,
        has_trash_block=has_trash_block,
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


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a plan, or a part of it, could not be executed. Holds no exception: its frames would hold the tensors."""

    name: str
    error: str
    is_out_of_memory: bool


def execute_isolated(runner: Runner, plan: SchedulerOutput, log: Callable[..., object]) -> StepOutput:
    """Execute a plan; if that raises, execute its halves, and so on, so that only the rows that raise alone fail.

    Computing a row twice is harmless: it writes the same K and V to the same slots.
    """
    started_s = time.perf_counter()
    outcome = _attempt(runner, plan)
    if isinstance(outcome, StepOutput):
        return outcome
    log(
        "step_failed",
        step_id=plan.step_id,
        num_sequences=len(plan.sequences),
        num_tokens=plan.num_tokens,
        error=outcome.error,
        is_out_of_memory=outcome.is_out_of_memory,
    )
    failures = [outcome]
    sampled = _execute_parts(runner, plan, failures)
    return StepOutput(
        step_id=plan.step_id,
        sampled=sampled,
        duration_s=time.perf_counter() - started_s,
        was_out_of_memory=any(failure.is_out_of_memory for failure in failures),
    )


def _attempt(runner: Runner, plan: SchedulerOutput) -> StepOutput | StepFailure:
    try:
        return runner.execute(plan)
    except Exception as error:
        return StepFailure(name=type(error).__name__, error=repr(error), is_out_of_memory=is_out_of_memory(error))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch has no type of its own for that on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATION_FAILED in str(error)


def _execute_parts(runner: Runner, plan: SchedulerOutput, failures: list[StepFailure]) -> list[SampledToken | None]:
    """Execute the halves of a plan that just failed, for the last reason in `failures`; further ones are added.

    Several rows are halved; a lone one only if its tokens were too many for the memory.
    """
    if len(plan.sequences) > 1:
        return [token for half in halved_rows(plan) for token in _execute_part(runner, half, failures)]
    if failures[-1].is_out_of_memory and plan.num_tokens > 1:
        first, last = halved_chunk(plan)
        stopped = _execute_part(runner, first, failures)
        return stopped if stopped[0] is not None else _execute_part(runner, last, failures)
    return [SampledToken(token_id=0, error=f"the model failed on this request ({failures[-1].name})")]


def _execute_part(runner: Runner, part: SchedulerOutput, failures: list[StepFailure]) -> list[SampledToken | None]:
    outcome = _attempt(runner, part)
    if isinstance(outcome, StepOutput):
        return outcome.sampled
    failures.append(outcome)
    return _execute_parts(runner, part, failures)


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
        step_time_s=counters.step_time_s,
        num_out_of_memory=counters.num_out_of_memory,
        num_consecutive_oom=scheduler.token_budget.num_consecutive_oom,
        num_integrity_faults=counters.num_integrity_faults,
        is_alive=is_alive,
        is_draining=is_draining,
    )
