"""Executes one plan: tensors from the plan, one packed forward pass, sampling of the rows that are due.

Owns the model, the KV tensors and the sampler; used by one thread only. Knows nothing of queues or requests.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

from batching.attention import select_backend
from batching.attention.paged_layer import AttentionBackend, PagedLayer
from batching.kv_cache import KVCachePool
from batching.model_loader import LoadedModel
from batching.sampler import Sampler
from batching.step import SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from batching.step_input import StepInput, input_ids, position_ids
from contracts.sampling import SamplingParams


class Forward(Protocol):
    """One packed forward pass: logits `[len(step.sample_rows), vocab]` of the rows that sample."""

    def __call__(self, step: StepInput) -> torch.Tensor: ...


class GenericForward:
    """transformers' own forward, with the paged attention hanging on its modules: works for every gated family."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool, backend: AttentionBackend) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._backend = backend
        for module, cache in zip(loaded.attention_modules, pool.layers, strict=True):
            module.paged_layer = PagedLayer(cache, backend)  # type: ignore[assignment]

    def __call__(self, step: StepInput) -> torch.Tensor:
        self._backend.begin(step)
        rows = torch.tensor(step.sample_rows, dtype=torch.int64, device=self._device)
        output = self._model(
            input_ids=input_ids(step, self._device),
            position_ids=position_ids(step, self._device),
            use_cache=False,
            logits_to_keep=rows,
        )
        logits: torch.Tensor = output.logits[0]
        return logits


class ModelRunner:
    """Plan in, tokens out. Owner: the runner thread, from construction to the end."""

    def __init__(self, loaded: LoadedModel, pool: KVCachePool) -> None:
        self._pool = pool
        self._block_size = pool.block_size
        backend = select_backend(loaded.device)
        self._forward: Forward = GenericForward(loaded, pool, backend)
        self._sampler = Sampler(loaded.vocab_size, frozenset(loaded.eos_token_ids), loaded.device)

    @torch.inference_mode()
    def execute(self, plan: SchedulerOutput) -> StepOutput:
        """Run one step; raises whatever the model raises."""
        started_s = time.perf_counter()
        if plan.blocks_to_clear:
            self._pool.clear(plan.blocks_to_clear)
        step = StepInput(plan, self._block_size)
        logits = self._forward(step)
        sampled: list[SampledToken | None] = [None] * len(plan.sequences)
        if step.sampling:
            tokens = self._sampler.sample(logits, step.sampling)
            for index, token in zip(step.sample_index, tokens, strict=True):
                sampled[index] = token
        return StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=time.perf_counter() - started_s)

    def warm_up(self) -> None:
        """Run one chunk and one decode into a block that is cleared again, so that the first request pays nothing."""
        chunk = _warm_up_row([1] * min(4, self._block_size - 1), 0)
        decode = _warm_up_row([1], len(chunk.token_ids))
        for row in (chunk, decode):
            self.execute(SchedulerOutput(step_id=0, sequences=[row], num_tokens=len(row.token_ids), num_decodes=0))
        self._pool.clear([0])


def _warm_up_row(token_ids: list[int], start: int) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=0,
        token_ids=token_ids,
        start=start,
        block_ids=[0],
        is_sampling=True,
        sampling=SamplingParams(temperature=0.0),
        seed=0,
        num_output_tokens=0,
    )
