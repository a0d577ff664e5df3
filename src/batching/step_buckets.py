"""The few sizes that steps are padded to, so that each can be captured once as a graph. Plain arithmetic.

A bucket fixes every shape and every grid of a step; which rows and tokens are real is read on the device.
"""

from __future__ import annotations

import msgspec

from batching.attention_bounds import AttentionBounds
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, SPLIT_TOKENS

SMALL_DECODES = (1, 2, 4, 8, 16)
MAX_FINE_DECODES = 256
MAX_CAPTURED_DECODES = 512
MIXED_TOKENS = (64, 128, 256, 512, 1024)
MIXED_ROWS = (8, 32, 128)
"""Rows of a mixed step, which are rows of the output matrix and of the sampler too; then as many as there can be."""
EAGER_TOKENS = 64
"""Larger steps are padded to multiples of this."""
PARTS_PER_ROW = 8
"""Parts of split attention that a captured step has room for, on average over its rows."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a step. Hashable: the key of what was captured."""

    num_tokens: int
    num_rows: int
    has_chunks: bool
    """False: every row has one token."""
    is_split: bool
    """Contexts may be longer than a split of attention."""
    is_captured: bool
    """False: such a step runs eagerly, with the bounds of its own plan."""

    def num_parts(self, max_len: int) -> int:
        """Parts that a captured step has room for; at least those of one context of `max_len` tokens."""
        longest = -(-max_len // SPLIT_TOKENS)
        return max(self.num_rows * PARTS_PER_ROW, self.num_rows + longest) if self.is_split else 0

    def bounds(self, max_len: int) -> AttentionBounds:
        """Those of all steps of a captured bucket, over rows of at most `max_len` tokens."""
        return AttentionBounds(
            max_context_len=max_len if self.is_split else SPLIT_TOKENS,
            num_parts=self.num_parts(max_len),
            max_short_queries=MAX_SHORT_QUERIES if self.has_chunks else 1,
            has_chunks=self.has_chunks,
        )


class StepSize(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice depends on."""

    num_tokens: int
    num_rows: int
    max_context_len: int
    num_parts: int


def padded_decodes(num_rows: int) -> int:
    """Rows of the decode step that holds `num_rows`."""
    for size in SMALL_DECODES:
        if num_rows <= size:
            return size
    step = 16 if num_rows <= MAX_FINE_DECODES else 32
    return -(-num_rows // step) * step


def choose_bucket(size: StepSize, max_rows: int, max_len: int) -> Bucket:
    """The smallest bucket that holds a step, for a runner of at most `max_rows` rows and `max_len` tokens in each."""
    has_chunks = size.num_tokens > size.num_rows
    num_rows = _mixed_rows(size.num_rows, max_rows) if has_chunks else padded_decodes(size.num_rows)
    captured_tokens = _captured_tokens(size.num_tokens) if has_chunks else num_rows
    is_small = captured_tokens is not None and (has_chunks or num_rows <= MAX_CAPTURED_DECODES)
    eager_tokens = -(-size.num_tokens // EAGER_TOKENS) * EAGER_TOKENS if has_chunks else num_rows
    bucket = Bucket(
        num_tokens=eager_tokens if captured_tokens is None else captured_tokens,
        num_rows=num_rows,
        has_chunks=has_chunks,
        is_split=size.max_context_len > SPLIT_TOKENS,
        is_captured=is_small,
    )
    if size.num_parts > bucket.num_parts(max_len):
        return msgspec.structs.replace(bucket, is_captured=False)
    return bucket


def _captured_tokens(num_tokens: int) -> int | None:
    return next((size for size in MIXED_TOKENS if num_tokens <= size), None)


def _mixed_rows(num_rows: int, max_rows: int) -> int:
    return min(next((size for size in MIXED_ROWS if num_rows <= size), max_rows), max_rows)
