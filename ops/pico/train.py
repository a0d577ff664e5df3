"""The training loop: a schedule by steps or by time, a pool of micro-batch workers, and a log."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from ops.pico import attention
from ops.pico.encoding import IGNORED, Batch
from ops.pico.optimizer import MasterOptimizer

BATCH_TOKENS = 1664
_BATCHES_PER_STEP = 2
_WARMUP_FRACTION = 0.02
_NUM_LOG_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to train: a number of steps, or minutes of wall time where steps is None."""

    steps: int | None
    minutes: float

    def progress(self, step: int, elapsed_s: float) -> float:
        """The fraction of the budget that is spent, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, elapsed_s / (60 * self.minutes))


@dataclass(frozen=True, slots=True)
class LogRow:
    """One line of the training log; losses are in nats per learned token."""

    step: int
    train_loss: float
    held_out_loss: float
    num_tokens: int
    elapsed_s: float


def batch_loss(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, int]:
    """The summed loss of the learned tokens and their number; other logits are never made."""
    hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    is_learned = batch.targets != IGNORED
    logits = model.lm_head(hidden[is_learned])
    targets = batch.targets[is_learned]
    return cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, held_out: list[Batch]) -> float:
    """Loss per learned token over the batches."""
    total, count = 0.0, 0
    for batch in held_out:
        loss, num_targets = batch_loss(model, batch)
        total, count = total + loss.item(), count + num_targets
    return total / count


def learning_rate_share(progress: float) -> float:
    """The share of the peak learning rate: a short warmup, then a cosine down to zero."""
    if progress < _WARMUP_FRACTION:
        return max(progress, 1e-3) / _WARMUP_FRACTION
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARMUP_FRACTION) / (1 - _WARMUP_FRACTION)))


class Trainer:
    """Owns the bfloat16 network while it trains, its float32 masters and its worker threads.

    Each micro-batch is one thread's work from start to end, so that a step does not wait at
    every operation when the machine is shared.
    """

    def __init__(self, model: LlamaForCausalLM, held_out: list[Batch], num_threads: int) -> None:
        attention.register()
        model.to(torch.bfloat16)
        model.set_attn_implementation(attention.NAME)
        self._model = model
        self._held_out = held_out
        self._optimizer = MasterOptimizer(model)
        self._workers = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))

    def _gradients(self, batch: Batch) -> tuple[tuple[torch.Tensor, ...], float, int]:
        loss, num_targets = batch_loss(self._model, batch)
        gradients = torch.autograd.grad(loss / num_targets, self._optimizer.parameters)
        return gradients, loss.item(), num_targets

    def _step(self, batches: list[Batch], rate_share: float) -> float:
        parts = list(self._workers.map(self._gradients, batches))
        num_targets = sum(part[2] for part in parts)
        self._optimizer.step([(part[0], part[2] / num_targets) for part in parts], rate_share)
        return sum(part[1] for part in parts) / num_targets

    def train(self, data: Iterator[Batch], budget: Budget) -> Iterator[LogRow]:
        """Trains until the budget is spent; yields a log row after each sixteenth of it."""
        started = time.monotonic()
        step, num_tokens, num_rows = 0, 0, 0
        running, progress = math.log(self._model.config.vocab_size), 0.0
        while progress < 1:
            batches = list(islice(data, _BATCHES_PER_STEP))
            running += 0.02 * (self._step(batches, learning_rate_share(progress)) - running)
            step += 1
            num_tokens += sum(batch.num_tokens for batch in batches)
            progress = budget.progress(step, time.monotonic() - started)
            if progress * _NUM_LOG_ROWS >= num_rows + 1:
                num_rows = math.floor(progress * _NUM_LOG_ROWS)
                elapsed_s = time.monotonic() - started
                yield LogRow(step, running, mean_loss(self._model, self._held_out), num_tokens, elapsed_s)
