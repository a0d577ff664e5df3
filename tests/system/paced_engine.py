"""The engine's process with everything real but the model: `python -m tests.system.paced_engine FD`.

A step takes STEP_S whatever its batch, and every sample says the alphabet again and again; where several models are
declared, each begins it elsewhere. A prompt token may ask for
more: HASTE makes steps quick as long as its sample runs, HANG makes its first step last for ever, END makes the step's
result unusable, which kills the loop.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from batching import async_engine
from batching.engine import EngineCore, scheduler_config
from batching.model_loader import ProgressCallback
from batching.scheduler import Scheduler
from batching.step import SampledToken, SchedulerOutput, StepOutput
from contracts.errors import ModelNotUsable
from contracts.generation import TokenLogprob
from contracts.settings import EngineSettings
from service import engine_process
from tests.fakes import fake_engine_info

STEP_S = 0.01
HANG = 200
END = 201
HASTE = 202
HASTY_STEP_S = 0.001
FIRST_ALIAS = "model"
"""Of the model that all servers of these tests have; it calls itself fake/model."""
BROKEN = "broken"
"""A file in the directory of a model that cannot be loaded."""
NUM_BLOCKS_VARIABLE = "PACED_NUM_BLOCKS"
MAX_MODEL_LEN = 1_000_000
LOGPROB = TokenLogprob(logprob=-0.25, top=[(ord("a") + index, -0.5 * index) for index in range(20)])


class PacedRunner:
    """Follows the clock and the prompts."""

    def __init__(self, num_skipped_letters: int) -> None:
        self._num_skipped_letters = num_skipped_letters
        self._hasty: set[int] = set()
        """Sequences that asked for HASTE."""

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        tokens = {token for row in plan.sequences for token in row.token_ids}
        self._hasty |= {row.seq_id for row in plan.sequences if HASTE in row.token_ids}
        is_hasty = any(row.seq_id in self._hasty for row in plan.sequences)
        time.sleep(3600.0 if HANG in tokens else HASTY_STEP_S if is_hasty else STEP_S)
        sampled = [
            SampledToken(
                token_id=ord("a") + (row.context_len + self._num_skipped_letters) % 26,
                logprob=None if row.sampling.num_logprobs is None else LOGPROB,
            )
            if row.is_sampling
            else None
            for row in plan.sequences
        ]
        kept = [] if END in tokens else sampled
        return StepOutput(step_id=plan.step_id, sampled=list(kept), duration_s=STEP_S)


def build(settings: EngineSettings, on_progress: ProgressCallback) -> EngineCore:
    """Stands in for batching.engine.build_engine."""
    on_progress("pretending to load", None)
    info = msgspec.structs.replace(
        fake_engine_info(Path(settings.model), max_model_len=MAX_MODEL_LEN), max_num_seqs=settings.max_num_seqs
    )
    alias = settings.served_model_name or FIRST_ALIAS
    if (Path(settings.model) / BROKEN).exists():
        raise ModelNotUsable(f"The weights in {settings.model} are damaged: 1000 bytes are missing. Fetch them again.")
    info = msgspec.structs.replace(
        info,
        model_name=info.model_name if alias == FIRST_ALIAS else alias,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        num_blocks=int(os.environ.get(NUM_BLOCKS_VARIABLE, info.num_blocks)),
    )
    return EngineCore(
        info=info,
        scheduler=Scheduler(scheduler_config(settings, info)),
        runner=PacedRunner(num_skipped_letters(alias)),
        warm_up_step_s=STEP_S,
    )


def num_skipped_letters(alias: str) -> int:
    """None for the first model."""
    return 0 if alias == FIRST_ALIAS else sum(alias.encode()) % 26


if __name__ == "__main__":
    async_engine.build_engine = build  # type: ignore[attr-defined, assignment]  # imported there, not exported
    engine_process.main(sys.argv[1:])
