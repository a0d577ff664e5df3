"""Sampler: logits of the sampling rows in, one chosen token (or one error) per row out.

Owns the choice of the kernel and the order of the steps: check, edit (penalties, bias, min_tokens), choose
(temperature, top_k, top_p, min_p, noise), log probabilities of the raw logits. Keeps nothing between steps: a token
depends on the row's logits, options, seed and position, never on its batch. Knows nothing of scheduling or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog
import torch

from batching.kernels.sampling_torch import TorchSampling
from batching.logits_processing import is_edited, process_logits
from batching.sampling_options import RowOptions, collect_options
from batching.step import SampledToken, ScheduledSequence
from contracts.generation import TokenLogprob

logger = structlog.get_logger(__name__)

RAW_ERROR = (
    "The model's logits at position {position} contain NaN or +inf, or are all -inf, so no token can be chosen; "
    "the weights or the dtype do not fit this input. Try float32."
)
EDITED_ERROR = (
    "Penalties, logit_bias and min_tokens leave no token with a finite logit at position {position}; relax one of them."
)


class SamplingKernel(Protocol):
    """What a kernel must offer; `batching.kernels.sampling_torch` documents each method."""

    def argmax(self, logits: torch.Tensor) -> tuple[list[int], list[bool]]: ...

    def choose(self, logits: torch.Tensor, options: RowOptions) -> tuple[list[int], list[bool]]: ...

    def logprobs(
        self, logits: torch.Tensor, token_ids: list[int], num_top: int
    ) -> tuple[list[float], list[list[int]], list[list[float]]]: ...


class Sampler:
    """Owned by the runner thread, which is the only caller of `sample`."""

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: frozenset[int],
        device: torch.device,
        kernel: SamplingKernel | None = None,
    ) -> None:
        """Take the fastest kernel for the device unless one is given; numba compiles here, never in `sample`."""
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._kernel = kernel or select_kernel(vocab_size, device)

    def sample(self, logits: torch.Tensor, rows: list[ScheduledSequence]) -> list[SampledToken]:
        """Choose one token for each row; a row whose logits are not finite gets an error and fails alone.

        logits: [len(rows), at least vocab_size] float32 or bfloat16, unchanged; ids from vocab_size on are padding.
        """
        if not rows:
            return []
        raw = logits[:, : self._vocab_size]
        if all(row.sampling.is_greedy and not is_edited(row, self._eos_token_ids) for row in rows):
            token_ids, usable = self._kernel.argmax(raw)
            errors = [None if flag else RAW_ERROR for flag in usable]
        else:
            token_ids, errors = self._choose(raw, rows)
        logprobs = self._logprobs(raw, rows, token_ids, errors)
        return [
            SampledToken(token_id=token_id, logprob=logprobs.get(index))
            if error is None
            else SampledToken(token_id=0, error=error.format(position=rows[index].context_len))
            for index, (token_id, error) in enumerate(zip(token_ids, errors, strict=True))
        ]

    def check(self, logits: torch.Tensor, rows: list[ScheduledSequence]) -> list[SampledToken | None]:
        """An error for each row whose logits are not finite, for rows that choose no token yet; shaped as `sample`."""
        if not rows:
            return []
        _, usable = self._kernel.argmax(logits[:, : self._vocab_size])
        return [
            None if flag else SampledToken(token_id=0, error=RAW_ERROR.format(position=row.context_len))
            for flag, row in zip(usable, rows, strict=True)
        ]

    def _choose(self, raw: torch.Tensor, rows: list[ScheduledSequence]) -> tuple[list[int], list[str | None]]:
        """Choose for rows without edits on the raw logits, and for the others on an edited float32 copy."""
        token_ids = [0] * len(rows)
        errors: list[str | None] = [None] * len(rows)
        edited = [index for index, row in enumerate(rows) if is_edited(row, self._eos_token_ids)]
        untouched = sorted(set(range(len(rows))).difference(edited))
        if untouched:
            chosen = self._kernel.choose(raw, collect_options(untouched, rows))
            for index, token_id, flag in zip(untouched, *chosen, strict=True):
                token_ids[index] = token_id
                errors[index] = None if flag else RAW_ERROR
        if edited:
            sequences = [rows[index] for index in edited]
            copy = raw[torch.tensor(edited, device=raw.device)].float()
            raw_usable = copy.amax(dim=-1).isfinite().tolist()
            process_logits(copy, sequences, self._eos_token_ids)
            chosen = self._kernel.choose(copy, collect_options(range(len(edited)), sequences))
            for index, raw_flag, token_id, flag in zip(edited, raw_usable, *chosen, strict=True):
                token_ids[index] = token_id
                errors[index] = (None if flag else EDITED_ERROR) if raw_flag else RAW_ERROR
        return token_ids, errors

    def _logprobs(
        self,
        raw: torch.Tensor,
        rows: list[ScheduledSequence],
        token_ids: Sequence[int],
        errors: Sequence[str | None],
    ) -> dict[int, TokenLogprob]:
        """Log probabilities of the rows that asked for them, by row number; tokens of probability 0 are left out."""
        num_top = {
            index: row.sampling.num_logprobs
            for index, row in enumerate(rows)
            if row.sampling.num_logprobs is not None and errors[index] is None
        }
        if not num_top:
            return {}
        asking = list(num_top)
        selected = raw[torch.tensor(asking, device=raw.device)]
        chosen, top_ids, top_logprobs = self._kernel.logprobs(
            selected, [token_ids[index] for index in asking], max(num_top.values())
        )
        return {
            index: TokenLogprob(
                logprob=chosen[row],
                top=[
                    pair
                    for pair in zip(top_ids[row][: num_top[index]], top_logprobs[row][: num_top[index]], strict=True)
                    if pair[1] != float("-inf")
                ],
            )
            for row, index in enumerate(asking)
        }


def select_kernel(vocab_size: int, device: torch.device) -> SamplingKernel:
    """The fastest kernel that works here: numba's on a CPU, plain torch elsewhere and where numba cannot be used."""
    if device.type != "cpu":
        return TorchSampling()
    try:
        from batching.kernels.sampling_numba import NumbaSampling
    except (ImportError, RuntimeError) as error:
        # RuntimeError: numba finds no writable directory for its cache.
        logger.debug("numba_sampling_unavailable", error=str(error))
        return TorchSampling()
    kernel = NumbaSampling(vocab_size, torch.get_num_threads())
    kernel.compile()
    return kernel
