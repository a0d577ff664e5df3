"""Edits of raw logits before temperature: penalties, logit bias and the min_tokens mask, in that order.

Only the few token ids that an option names are touched: the edits of all rows are listed on the host as
(row, token id, number) and applied by one indexed operation per kind, in float32. Token ids outside the vocabulary
cannot be sampled and are passed over. Truncation and noise belong to the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from batching.step import ScheduledSequence

IntArray = npt.NDArray[np.int64]


def is_edited(sequence: ScheduledSequence, eos_token_ids: frozenset[int]) -> bool:
    """Whether any option of the sequence changes its raw logits in this step."""
    sampling = sequence.sampling
    return (
        bool(sampling.logit_bias)
        or sampling.has_penalties
        or (
            sequence.num_output_tokens < sampling.min_tokens
            and bool(_ending_token_ids(sequence, eos_token_ids, 1 << 62))
        )
    )


def process_logits(logits: torch.Tensor, sequences: Sequence[ScheduledSequence], eos_token_ids: frozenset[int]) -> None:
    """Apply every edit of `sequences` in place; logits: [len(sequences), vocab_size] float32, contiguous."""
    vocab_size = logits.shape[1]
    repetition, output, bias, masked = _Edits(), _Edits(), _Edits(), _Edits()
    for row, sequence in enumerate(sequences):
        sampling = sequence.sampling
        if sampling.repetition_penalty != 1.0:
            history = _history(sequence.prompt_token_ids, sequence.output_token_ids)
            repetition.add(row, history[history < vocab_size], sampling.repetition_penalty)
        if sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0:
            ids, counts = np.unique(_history(sequence.output_token_ids), return_counts=True)
            penalty = sampling.presence_penalty + sampling.frequency_penalty * counts
            output.add(row, ids[ids < vocab_size], -penalty[ids < vocab_size])
        if sampling.logit_bias:
            pairs = [(token_id, value) for token_id, value in sampling.logit_bias if 0 <= token_id < vocab_size]
            bias.add(row, [token_id for token_id, _ in pairs], [value for _, value in pairs])
        if sequence.num_output_tokens < sampling.min_tokens:
            masked.add(row, _ending_token_ids(sequence, eos_token_ids, vocab_size), 0.0)
    _divide(logits, repetition)
    _add(logits, output)
    _add(logits, bias)
    if masked.token_ids:
        logits[masked.indices(logits.device)] = float("-inf")


@dataclass(slots=True)
class _Edits:
    """Edits of one kind for all rows, gathered on the host."""

    rows: list[IntArray] = field(default_factory=list)
    token_ids: list[IntArray] = field(default_factory=list)
    numbers: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, row: int, token_ids: IntArray | list[int], numbers: npt.ArrayLike) -> None:
        ids = np.asarray(token_ids, dtype=np.int64)
        if ids.size:
            self.rows.append(np.full(ids.size, row, dtype=np.int64))
            self.token_ids.append(ids)
            self.numbers.append(np.broadcast_to(np.asarray(numbers, dtype=np.float32), ids.shape))

    def indices(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows, ids = np.concatenate(self.rows), np.concatenate(self.token_ids)
        return torch.from_numpy(rows).to(device), torch.from_numpy(ids).to(device)

    def values(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(self.numbers)).to(device)


def _divide(logits: torch.Tensor, edits: _Edits) -> None:
    """Divide positive logits by their number and multiply the others; a repeated token id counts once."""
    if edits.token_ids:
        indices, penalty = edits.indices(logits.device), edits.values(logits.device)
        before = logits[indices]
        logits[indices] = torch.where(before > 0, before / penalty, before * penalty)


def _add(logits: torch.Tensor, edits: _Edits) -> None:
    if edits.token_ids:
        logits.index_put_(edits.indices(logits.device), edits.values(logits.device), accumulate=True)


def _history(*parts: Sequence[int] | None) -> IntArray:
    """Token ids of the parts; the scheduler copies the history only where a penalty needs it."""
    return np.concatenate([np.asarray(part or (), dtype=np.int64) for part in parts])


def _ending_token_ids(sequence: ScheduledSequence, eos_token_ids: frozenset[int], vocab_size: int) -> list[int]:
    """Token ids that would end the sequence now."""
    sampling = sequence.sampling
    endings: Iterable[int] = sampling.stop_token_ids
    if not sampling.ignore_eos:
        endings = eos_token_ids.union(endings)
    return [token_id for token_id in endings if 0 <= token_id < vocab_size]
