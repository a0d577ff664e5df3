"""The training loop: batches, two optimizers, a schedule by steps or by time, and a log."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from ops.pico.encoding import IGNORED, Batch

BATCH_TOKENS = 8192
_WARMUP_FRACTION = 0.02


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
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        is_learned = batch.targets != IGNORED
        logits = model.lm_head(hidden[is_learned])
    targets = batch.targets[is_learned]
    return cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, held_out: list[Batch]) -> float:
    """Loss per learned token over the batches."""
    model.eval()
    total, count = 0.0, 0
    for batch in held_out:
        loss, num_targets = batch_loss(model, batch)
        total, count = total + loss.item(), count + num_targets
    model.train()
    return total / count


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers" not in n]
    return [
        torch.optim.Muon(matrices, lr=4e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _rate(progress: float) -> float:
    """The share of the peak learning rate: a short warmup, then a cosine down to zero."""
    if progress < _WARMUP_FRACTION:
        return max(progress, 1e-4) / _WARMUP_FRACTION
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARMUP_FRACTION) / (1 - _WARMUP_FRACTION)))


def _step(model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], batch: Batch) -> float:
    loss, num_targets = batch_loss(model, batch)
    torch.autograd.backward(loss / num_targets)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item() / num_targets


def train(model: LlamaForCausalLM, data: Iterator[Batch], held_out: list[Batch], budget: Budget) -> Iterator[LogRow]:
    """Trains until the budget is spent and yields a log row at every twentieth of it."""
    optimizers = _optimizers(model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started = time.monotonic()
    step, num_tokens, next_row = 0, 0, 0.05
    running = math.log(model.config.vocab_size)
    progress = 0.0
    while progress < 1:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _rate(progress)
        batch = next(data)
        running += 0.02 * (_step(model, optimizers, batch) - running)
        step, num_tokens = step + 1, num_tokens + batch.num_tokens
        progress = budget.progress(step, time.monotonic() - started)
        if progress >= next_row:
            next_row = math.floor(progress * 20 + 1) / 20
            elapsed_s = time.monotonic() - started
            yield LogRow(step, running, mean_loss(model, held_out), num_tokens, elapsed_s)
