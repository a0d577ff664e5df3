"""Invariants of the pure core at both ends: what is let in and what is refused, and what is left when all is done."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batching.sequence import SequenceStatus
from contracts.errors import ContextLengthExceeded, InvalidValue, NoRoom, QueueFull, QuireError
from contracts.generation import FinishReason, GenerationRequest
from tests.batching.budget_oracle import num_consecutive_oom

if TYPE_CHECKING:
    from tests.batching.core_world import World

_MANY_RESTARTS = 1000


def books(world: World) -> tuple[int, ...]:
    """Counts that a refused request must leave as they are."""
    scheduler = world.scheduler
    counters = scheduler.counters
    pool = scheduler.pool
    queue = (len(scheduler.waiting), scheduler.waiting.num_tokens, scheduler.num_waiting, len(scheduler._requests))
    held = (len(scheduler._parked), scheduler.limits.num_live, pool.num_free_blocks)
    return (*queue, *held, counters.num_requests, counters.num_prompt_tokens)


def expected_refusal(world: World, request: GenerationRequest) -> type[QuireError] | None:
    config = world.config
    num_wanted = len(request.prompt_token_ids) + request.sampling.max_tokens
    queued = [log for log in world.live if log.status in (SequenceStatus.WAITING, SequenceStatus.PARKED)]
    num_queued_tokens = sum(len(log.known_token_ids) for log in queued if log.status is SequenceStatus.WAITING)
    num_tokens = num_queued_tokens + len(request.prompt_token_ids)
    if any(log.request.request_id == request.request_id for log in world.live):
        return InvalidValue
    if num_wanted > min(config.max_model_len, config.num_blocks * config.block_size):
        return ContextLengthExceeded
    is_over_requests = len(queued) + request.num_samples > config.max_queued_requests
    if is_over_requests or (num_queued_tokens and num_tokens > config.max_queued_tokens):
        no_room = len(queued) >= config.max_queued_requests or num_queued_tokens >= config.max_queued_tokens
        return NoRoom if no_room else QueueFull
    return world.rates.expected_refusal(request, world.now_s)


def i16_refused_exactly_when_it_must(expected: type[QuireError] | None, refusal: QuireError | None) -> None:
    assert type(refusal) is (expected or type(None)), f"{refusal!r} instead of {expected}"
    if isinstance(refusal, QueueFull):
        assert refusal.retry_after_s is not None
        assert 1.0 <= refusal.retry_after_s <= 120.0


def refusal_changed_nothing(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert before == after, "a refused request left something behind"


def remaining_work(world: World) -> tuple[int, int, int]:
    """Output tokens that may still come, restarts left, known tokens to compute: compared in this order."""
    live = world.live
    return (
        sum(log.request.sampling.max_tokens - len(log.token_ids) for log in live),
        sum(_MANY_RESTARTS - log.sequence.num_preemptions for log in live),
        sum(log.sequence.num_remaining_tokens for log in live),
    )


def i18_drain_gets_closer(before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    assert after < before, f"a step left {after} of {before}"


def i13_nothing_is_left(world: World) -> None:
    scheduler, logs = world.scheduler, list(world.logs.values())
    counters, pool = scheduler.counters, scheduler.pool
    assert not world.live
    assert not scheduler.has_work
    assert not scheduler.is_step_in_flight
    assert scheduler.num_running == scheduler.num_waiting == scheduler.waiting.num_tokens == 0
    assert not scheduler._requests
    assert not scheduler._parked
    assert not scheduler._in_flight.held_block_ids
    assert scheduler.limits.num_live == 0
    assert pool.num_free_blocks == pool.num_blocks
    assert all(pool.num_refs(block_id) == 0 for block_id in range(pool.num_blocks))
    ends = Counter(log.finish_reason for log in logs)
    assert counters.num_aborted == ends[FinishReason.ABORT]
    assert counters.num_failed == ends[FinishReason.ERROR]
    assert counters.num_finished == ends[FinishReason.STOP] + ends[FinishReason.LENGTH] + ends[FinishReason.DEADLINE]
    assert counters.num_out_of_memory == sum(was_out_of_memory for _, was_out_of_memory in world.steps)
    assert scheduler.token_budget.num_consecutive_oom == num_consecutive_oom(world.steps[world.num_steps_at_rest :])
    assert counters.num_generated_tokens == sum(len(log.token_ids) for log in logs)
    assert counters.num_preemptions == sum(log.sequence.num_preemptions for log in logs)
    first = [log for log in logs if log.sample_index == 0]
    assert counters.num_requests == len(first)
    assert counters.num_prompt_tokens == sum(len(log.request.prompt_token_ids) for log in first)
    assert counters.num_cached_tokens == sum(log.sequence.num_cached_tokens for log in logs)
    assert scheduler.repair_idle() is None
    world.num_steps_at_rest = len(world.steps)
    assert scheduler.token_budget.num_consecutive_oom == 0
