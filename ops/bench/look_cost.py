"""What one look for the live view costs the engine's loop: `python -m ops.bench.look_cost`. Schedulers, no model."""

from __future__ import annotations

import time

from batching.live_look import count_so_far, look_at_batch, look_at_blocks, look_at_queue
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, StepOutput
from contracts.frames import Looked, encode_frame
from contracts.generation import GenerationRequest
from contracts.latencies import Latencies
from contracts.live import EngineLook
from contracts.sampling import SamplingParams

CASES = ((10_922, 16, 300), (10_922, 256, 600), (65_536, 256, 2000))
"""Blocks of the pool, sequences, prompt tokens of each."""
NUM_TRIALS = 50


def busy_scheduler(num_blocks: int, num_seqs: int, prompt_len: int) -> Scheduler:
    """Every sequence has its prompt computed and decodes."""
    config = SchedulerConfig(
        num_blocks=num_blocks,
        block_size=16,
        max_model_len=4096,
        vocab_size=1000,
        eos_token_ids=frozenset(),
        max_num_seqs=num_seqs,
        max_num_batched_tokens=num_seqs * prompt_len,
        max_queued_requests=num_seqs,
    )
    scheduler = Scheduler(config)
    for index in range(num_seqs):
        prompt = [(position * 7 + index) % 1000 for position in range(prompt_len)]
        scheduler.submit(GenerationRequest(request_id=f"r{index}", prompt_token_ids=prompt, sampling=SAMPLING), 0.0)
    for second in range(4):
        plan = scheduler.schedule(float(second))
        if plan is None:
            raise RuntimeError("nothing could be scheduled")
        sampled = [SampledToken(token_id=1) if row.is_sampling else None for row in plan.sequences]
        scheduler.commit(StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=0.01), float(second))
    return scheduler


def look_once(scheduler: Scheduler) -> float:
    """Seconds for the look and its frame."""
    began_s = time.perf_counter()
    cells, shared = look_at_blocks(scheduler)
    look = EngineLook(
        at_s=0.0,
        cells=cells,
        shared=shared,
        running=look_at_batch(scheduler, 0.0),
        waiting=look_at_queue(scheduler, 0.0),
        num_waiting=scheduler.num_waiting,
        num_blocks=scheduler.pool.num_blocks,
        num_free_blocks=scheduler.pool.num_free_blocks,
        num_cached_blocks=scheduler.pool.num_cached_blocks,
        counters=count_so_far(scheduler, Latencies()),
        took_s=0.0,
    )
    encode_frame(Looked(0, look))
    return time.perf_counter() - began_s


SAMPLING = SamplingParams(max_tokens=500)

if __name__ == "__main__":
    for num_blocks, num_seqs, prompt_len in CASES:
        busy = busy_scheduler(num_blocks, num_seqs, prompt_len)
        taken_s = sorted(look_once(busy) for _ in range(NUM_TRIALS))
        held = busy.pool.num_blocks - busy.pool.num_free_blocks
        print(
            f"{num_blocks} blocks, {held} held by {busy.num_running} sequences: median "
            f"{taken_s[NUM_TRIALS // 2] * 1e3:.2f} ms, least {taken_s[0] * 1e3:.2f} ms"
        )
