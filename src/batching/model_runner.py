"""Executes one plan: tensors from the plan, one packed forward pass, sampling of the rows that are due.

The last row of every sequence gets logits, also of those that do not sample: broken numbers in a chunk reach its last
row wherever that attends to them, so that the sequence fails in the step that broke it and nobody finds its blocks.

Owns the model, the KV tensors and the sampler; used by one thread only. Knows nothing of queues or requests.
"""

from __future__ import annotations

import time

import torch

from batching.forward import Forward
from batching.kv_cache import KVCachePool
from batching.sampler import Sampler
from batching.step import SampledToken, SchedulerOutput, StepOutput
from batching.step_input import StepInput


class ModelRunner:
    """Plan in, tokens out. Owner: the runner thread, from construction to the end."""

    def __init__(self, forward: Forward, pool: KVCachePool, sampler: Sampler) -> None:
        self._forward = forward
        self._pool = pool
        self._sampler = sampler

    @torch.inference_mode()
    def execute(self, plan: SchedulerOutput) -> StepOutput:
        """Run one step; raises whatever the model raises."""
        started_s = time.perf_counter()
        if plan.blocks_to_clear:
            self._pool.clear(plan.blocks_to_clear)
        step = StepInput(plan, self._pool.block_size)
        logits = self._forward(step)
        num_sampling = len(step.sampling)
        tokens = self._sampler.sample(logits[:num_sampling], step.sampling)
        errors = self._sampler.check(logits[num_sampling:], step.checked)
        sampled: list[SampledToken | None] = [None] * len(plan.sequences)
        for index, token in zip(step.sample_index + step.checked_index, [*tokens, *errors], strict=True):
            sampled[index] = token
        return StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=time.perf_counter() - started_s)
