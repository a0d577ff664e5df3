"""One look into the scheduler for the live view: which blocks are whose, who runs, who waits. Pure.

Nothing here runs unless somebody watches, and nothing of the engine's own is changed: a look reads what the Scheduler
keeps to itself, between two turns of the loop that owns it.
"""

from __future__ import annotations

from array import array
from itertools import islice

from batching.scheduler import Scheduler
from batching.sequence import Sequence
from contracts.latencies import Latencies
from contracts.live import (
    CACHED,
    FIRST_HOLDER,
    LEAVING,
    MAX_CELLS,
    MAX_WAITING_TOLD,
    LiveCounters,
    RunningLook,
    WaitingLook,
)


def look_at_blocks(scheduler: Scheduler) -> tuple[bytes, list[int]]:
    """What each of the first MAX_CELLS blocks is (EngineLook.cells), and which of them have several holders.

    A block with several holders counts as that of the first in order, which keeps it longest.
    """
    pool = scheduler.pool
    running = scheduler._running
    num_cells = min(pool.num_blocks, MAX_CELLS)
    cells = array("H", bytes(2 * pool.num_blocks))
    for block_id in pool.cached_block_ids():
        cells[block_id] = CACHED
    for block_id in scheduler._in_flight.held_block_ids:
        cells[block_id] = LEAVING
    for place in range(len(running) - 1, -1, -1):
        cell = FIRST_HOLDER + place
        for block_id in running[place].block_table.block_ids:
            cells[block_id] = cell
    return cells[:num_cells].tobytes(), pool.shared_block_ids(num_cells)


def look_at_batch(scheduler: Scheduler, now_s: float) -> list[RunningLook]:
    """Everyone who runs, in the order of the cells."""
    return [_running(sequence, now_s) for sequence in scheduler._running]


def look_at_queue(scheduler: Scheduler, now_s: float) -> list[WaitingLook]:
    """The first who wait, in the order in which they would be let in."""
    return [_waiting(sequence, now_s) for sequence in islice(scheduler.waiting.in_turn(), MAX_WAITING_TOLD)]


def count_so_far(scheduler: Scheduler, latencies: Latencies) -> LiveCounters:
    """What has happened since the start."""
    counters = scheduler.counters
    return LiveCounters(
        num_steps=counters.num_steps,
        num_requests=counters.num_requests,
        num_ended=counters.num_finished + counters.num_aborted + counters.num_failed,
        num_preemptions=counters.num_preemptions,
        num_prompt_tokens=counters.num_prompt_tokens,
        num_cached_tokens=counters.num_cached_tokens,
        num_generated_tokens=counters.num_generated_tokens,
        num_scheduled_seqs=counters.num_scheduled_seqs,
        step_time_s=counters.step_time_s,
        first_token_s=latencies.time_to_first_token_s.sum,
        num_first_tokens=sum(latencies.time_to_first_token_s.counts),
        inter_token_s=latencies.inter_token_s.sum,
        num_inter_tokens=sum(latencies.inter_token_s.counts),
    )


def _running(sequence: Sequence, now_s: float) -> RunningLook:
    return RunningLook(
        seq_id=sequence.seq_id,
        request_id=sequence.request.request_id,
        sample_index=sequence.sample_index,
        tenant=sequence.request.tenant.name,
        is_decoding=sequence.is_decoding,
        num_prompt_tokens=sequence.num_prompt_tokens,
        num_cached_tokens=sequence.num_cached_tokens,
        num_computed_tokens=sequence.num_computed_tokens,
        num_output_tokens=sequence.num_output_tokens,
        max_tokens=sequence.request.sampling.max_tokens,
        num_blocks=len(sequence.block_table.block_ids),
        num_preemptions=sequence.num_preemptions,
        age_s=now_s - sequence.submitted_s,
    )


def _waiting(sequence: Sequence, now_s: float) -> WaitingLook:
    return WaitingLook(
        seq_id=sequence.seq_id,
        request_id=sequence.request.request_id,
        sample_index=sequence.sample_index,
        tenant=sequence.request.tenant.name,
        num_prompt_tokens=sequence.num_prompt_tokens,
        is_preempted=sequence.num_preemptions > 0,
        age_s=now_s - sequence.submitted_s,
    )
