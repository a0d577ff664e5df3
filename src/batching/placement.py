"""Does a waiting sequence fit into the free blocks, and which of them are left to those that run.

Knows the pool and the sequences, nothing of budgets or of whose turn it is.
"""

from __future__ import annotations

from batching.block_pool import BlockPool
from batching.sequence import Sequence

MAX_OPTIMISTIC_PREEMPTIONS = 2
"""A sequence preempted this often is admitted again only when everything it can still need is free, and stays so."""


def place(sequence: Sequence, pool: BlockPool, num_kept_free: int) -> bool:
    """Give a waiting sequence its cached prefix and blocks for all its known tokens, if that leaves enough free."""
    table = sequence.block_table
    # The last known token is always computed, for its logits: its block is never taken from the cache.
    table.extend_keys(sequence.token_ids, sequence.num_tokens - 1)
    cached = pool.match(table.keys[: (sequence.num_tokens - 1) // table.block_size])
    num_new = table.num_missing_blocks(sequence.num_tokens) - len(cached)
    num_needed = num_new + pool.num_free_among(cached)
    if num_needed + num_kept_free > pool.num_free_blocks:
        return False
    pool.acquire(cached)
    table.block_ids = cached + pool.allocate(num_new)
    table.num_registered = len(cached)
    sequence.num_computed_tokens = len(cached) * table.block_size
    return True


def all_fit(running: list[Sequence], pool: BlockPool) -> bool:
    """Whether all that decode next get their slots without anybody's blocks.

    Asked before a step is planned ahead: who is preempted is decided with all tokens known, for somebody may end.
    """
    lens = [(sequence.decode_len, sequence.block_table) for sequence in running]
    missing = sum(table.num_missing_blocks(num_tokens) for num_tokens, table in lens if num_tokens)
    return missing <= pool.num_free_blocks


def num_blocks_kept_free(sequence: Sequence, running: list[Sequence]) -> int:
    """Blocks left to those who run: one each for their next tokens, or all they can need after preemptions."""
    is_optimistic = sequence.num_preemptions < MAX_OPTIMISTIC_PREEMPTIONS
    if is_optimistic and not any(_is_protected(other, sequence) for other in running):
        return len(running)
    own = sequence.block_table
    num_own = own.num_missing_blocks(sequence.max_len) - own.num_missing_blocks(sequence.num_tokens)
    return num_own + sum(other.block_table.num_missing_blocks(other.max_len) for other in running)


def _is_protected(running: Sequence, sequence: Sequence) -> bool:
    """The running one would be preempted once more for an older one of another tenant, which came to run later.

    Turns between tenants do not follow age: without this, the backlog of one could preempt another without end.
    """
    is_worn = running.num_preemptions >= MAX_OPTIMISTIC_PREEMPTIONS
    return is_worn and running.order > sequence.order and running.request.tenant.name != sequence.request.tenant.name
