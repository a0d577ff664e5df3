"""Steps run before the first request, so that no request pays for compilation or lazy initialisation.

`python -m batching.warm_up` does the same for the embedded model and ends: it fills the kernel cache at installation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batching.kv_cache import KVCachePool
from batching.step import ScheduledSequence, SchedulerOutput
from contracts.sampling import SamplingParams

if TYPE_CHECKING:
    from batching.isolation import Runner

NUM_ROWS = 20
"""Enough rows for the parallel form of every kernel."""
CONTEXT_LEN = 64

GREEDY = SamplingParams(temperature=0.0)
SAMPLED = (
    SamplingParams(temperature=0.8, num_logprobs=1),
    SamplingParams(temperature=0.8, top_k=5, top_p=0.9, min_p=0.01),
    SamplingParams(temperature=0.8, repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1),
)


def warm_up(runner: Runner, pool: KVCachePool, max_model_len: int) -> float:
    """Run a chunk and decodes of one and of many rows, greedy and sampled, in blocks that are cleared again.

    Returns the seconds of the longest of these steps.
    """
    context_len = min(CONTEXT_LEN, max_model_len)
    block_ids = list(range(-(-context_len // pool.block_size)))
    chunk = [_row(0, list(range(min(NUM_ROWS, context_len))), 0, block_ids, GREEDY)]
    alone = [_row(0, [1], context_len - 1, block_ids, GREEDY)]
    many = [_row(i, [1], context_len - 1, block_ids, SAMPLED[i % len(SAMPLED)]) for i in range(NUM_ROWS)]
    durations_s: list[float] = []
    for rows in (chunk, alone, many):
        num_tokens = sum(len(row.token_ids) for row in rows)
        plan = SchedulerOutput(step_id=0, sequences=rows, num_tokens=num_tokens, num_decodes=0)
        durations_s.append(runner.execute(plan).duration_s)
    pool.clear(block_ids)
    return max(durations_s)


def _row(
    seq_id: int, token_ids: list[int], start: int, block_ids: list[int], sampling: SamplingParams
) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=seq_id,
        token_ids=[token_id % 2 for token_id in token_ids],
        start=start,
        block_ids=block_ids,
        is_sampling=True,
        sampling=sampling,
        seed=seq_id,
        num_output_tokens=0,
        prompt_token_ids=[0, 1],
        output_token_ids=[1],
    )


def main() -> None:
    """Compile every kernel in both dtypes by serving the embedded model to nobody."""
    from batching.engine import build_engine
    from batching.model_loader import no_progress
    from contracts.settings import EngineSettings

    build_engine(EngineSettings(dtype="bfloat16"), no_progress)
    build_engine(EngineSettings(dtype="float32"), no_progress)


if __name__ == "__main__":
    main()
