"""Sampling kernel in plain torch operations, vectorised over rows: for any device, and the reference for faster ones.

It takes processed logits and options as arrays; it knows neither requests nor penalties.
"""

from __future__ import annotations

import torch

from batching.sampling_noise import gumbel_noise
from batching.sampling_options import NUCLEUS_SLACK, RowOptions

MAX_BLOCK_ELEMENTS = 1 << 22
"""Rows are taken in blocks of at most this many logits, which bounds the float64 temporaries to some 200 MB."""


class TorchSampling:
    """Stateless; every method may be called from the runner thread only."""

    def argmax(self, logits: torch.Tensor) -> tuple[list[int], list[bool]]:
        """Arg max of each row (lowest id among equals) and whether the row is usable.

        logits: [rows, vocab_size]. A NaN counts as the maximum, so the maximum alone tells NaN, +inf and all -inf.
        """
        best, token_ids = logits.max(dim=-1)
        return token_ids.tolist(), best.isfinite().tolist()

    def choose(self, logits: torch.Tensor, options: RowOptions) -> tuple[list[int], list[bool]]:
        """Token id for each of `options.rows` and whether its row is usable; logits: [any, vocab_size]."""
        if options.is_all_greedy:
            return self.argmax(logits[torch.from_numpy(options.rows).to(logits.device)])
        block_len = max(1, MAX_BLOCK_ELEMENTS // logits.shape[1])
        token_ids: list[int] = []
        usable: list[bool] = []
        for start in range(0, len(options.rows), block_len):
            ids, flags = self._choose_block(logits, options, slice(start, start + block_len))
            token_ids += ids
            usable += flags
        return token_ids, usable

    def _choose_block(self, logits: torch.Tensor, options: RowOptions, block: slice) -> tuple[list[int], list[bool]]:
        device = logits.device
        values = logits[torch.from_numpy(options.rows[block]).to(device)].float()
        usable = values.amax(dim=-1).isfinite().tolist()
        temperature = torch.from_numpy(options.temperature[block]).to(device)[:, None]
        is_greedy = temperature == 0
        temperature = temperature.masked_fill(is_greedy, 1.0)
        keys = torch.from_numpy(options.keys[block].astype("int64")).to(device)
        token_ids = torch.arange(values.shape[1], device=device)[None]
        if options.is_truncating:
            values, token_ids = values.sort(dim=-1, descending=True, stable=True)
        scores = values.double() / temperature
        noise = gumbel_noise(keys, token_ids).masked_fill(is_greedy, 0.0)
        if options.is_truncating:
            noise.masked_fill_(~_kept(scores, options, block), float("-inf"))
        best = (scores + noise).argmax(dim=-1, keepdim=True)
        return token_ids.expand_as(scores).gather(1, best)[:, 0].tolist(), usable

    def logprobs(
        self, logits: torch.Tensor, token_ids: list[int], num_top: int
    ) -> tuple[list[float], list[list[int]], list[list[float]]]:
        """Log probability of `token_ids`, and ids and log probabilities of the `num_top` most probable, best first.

        logits: [rows, vocab_size], raw and usable; token_ids: one for each row.
        """
        values = logits.float()
        logprobs = values - values.logsumexp(dim=-1, keepdim=True)
        ids = torch.tensor(token_ids, device=logits.device)[:, None]
        top_ids = _top_ids(values, min(num_top, values.shape[1]))
        return logprobs.gather(1, ids)[:, 0].tolist(), top_ids.tolist(), logprobs.gather(1, top_ids).tolist()


def _kept(scores: torch.Tensor, options: RowOptions, block: slice) -> torch.Tensor:
    """Which tokens survive top_k, top_p and min_p; scores: [rows, n] float64, already over T, each row descending."""
    device = scores.device
    top_k = torch.from_numpy(options.top_k[block]).to(device)[:, None]
    top_p = torch.from_numpy(options.top_p[block]).to(device)[:, None]
    min_p = torch.from_numpy(options.min_p[block]).to(device)[:, None]
    rank = torch.arange(scores.shape[1], device=device)[None]
    kept = (rank < top_k) | (top_k == 0)
    probabilities = scores.masked_fill(~kept, float("-inf")).softmax(dim=-1)
    mass_before = probabilities.cumsum(dim=-1) - probabilities
    kept &= (mass_before < top_p - NUCLEUS_SLACK) | (rank == 0) | (top_p >= 1.0)
    return kept & (scores >= scores[:, :1] + min_p.log())


def _top_ids(values: torch.Tensor, num_top: int) -> torch.Tensor:
    """Ids of the largest values, lower id first among equals; topk alone leaves that order open.

    The float32 bits become integers in the order of the floats, with the complement of the id below them.
    """
    bits = values.view(torch.int32).long()
    order = torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    rank = order * (1 << 32) - torch.arange(values.shape[1], device=values.device)
    return rank.topk(num_top, dim=-1).indices
