"""What is known of the contexts of a step without asking the device. Integers alone."""

from __future__ import annotations

import msgspec

from batching.row_book import RowPlan


class AttentionBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the contexts of a step without asking the device: of the plan, or of a whole bucket.

    See kernels.paged_attention.PagedBatch for each.
    """

    max_context_len: int
    num_parts: int
    max_short_queries: int
    has_chunks: bool


def bounds_of(row_plan: RowPlan) -> AttentionBounds:
    """Those of one plan."""
    return AttentionBounds(
        max_context_len=row_plan.max_context_len,
        num_parts=row_plan.num_parts(),
        max_short_queries=row_plan.max_short_queries,
        has_chunks=row_plan.has_chunks,
    )
