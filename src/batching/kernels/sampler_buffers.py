"""Where the sampler on the device leaves its results, whichever operations run it. Needs no Triton."""

from __future__ import annotations

import torch

from batching.kernels.triton_support import next_power_of_two

CHUNK = 4096
"""Logits that one program of the Triton kernels holds at once."""
MIN_CHUNK = 16
MAX_TOP_LOGPROBS = 20

CHOSEN, BROKEN_LOGITS, NOTHING_LEFT = 0, 1, 2
"""Status of a row: a token was chosen; its raw logits hold NaN or +inf or are all -inf; its edits leave no token."""


class SamplerBuffers:
    """What the launches hand to each other, for at most R rows; owner: the runner thread, which also reads the results.

    Results, all `[R]` or `[R, MAX_TOP_LOGPROBS]`: token_ids int32 (0 where nothing was chosen) and status int32, which
    are the two rows of `results`; logprobs float32 of the chosen tokens; top_ids int32 and top_logprobs float32, best
    first, padded with -1 and -inf.
    """

    __slots__ = (
        "chunk",
        "cuts",
        "edited",
        "logprobs",
        "part_ids",
        "part_keys",
        "part_scores",
        "part_sums",
        "part_tops",
        "raw_flags",
        "results",
        "status",
        "token_ids",
        "top_ids",
        "top_logprobs",
        "vocab_size",
    )

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self.chunk = max(MIN_CHUNK, min(CHUNK, next_power_of_two(vocab_size)))
        num_chunks = -(-vocab_size // self.chunk)

        def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.vocab_size = vocab_size
        self.edited = empty(num_rows, vocab_size)
        self.raw_flags = empty(num_rows)
        self.part_keys = empty(num_rows, num_chunks)
        self.part_scores = empty(num_rows, num_chunks, dtype=torch.float64)
        self.part_ids = empty(num_rows, num_chunks)
        self.part_sums = empty(num_rows, num_chunks, dtype=torch.float32)
        self.part_tops = empty(num_rows, num_chunks, MAX_TOP_LOGPROBS, dtype=torch.int64)
        self.cuts = empty(num_rows, 4)
        self.results = empty(2, num_rows)
        self.token_ids, self.status = self.results
        self.logprobs = empty(num_rows, dtype=torch.float32)
        self.top_ids = empty(num_rows, MAX_TOP_LOGPROBS)
        self.top_logprobs = empty(num_rows, MAX_TOP_LOGPROBS, dtype=torch.float32)
