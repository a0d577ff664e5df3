"""Which sequences of a step verify drafts of their next tokens, and how many. Pure.

Drafts pay while a step has few rows: each step reads all weights, and more rows cost little. They are made of tokens
that are known, so a step with drafts is planned when the last one is committed, never ahead of it; with so few rows the
host's work that this leaves uncovered is small. Each draft is a row of its own behind those of its sequence: it samples
with its own position, seed and context, as it would alone, and commit takes as many as fit together. So the text is the
one without drafts, whatever the drafts are.
"""

from __future__ import annotations

from batching.block_pool import BlockPool
from batching.scheduler_config import SchedulerConfig
from batching.sequence import Sequence, SequenceStatus
from batching.step import SampledToken, ScheduledSequence

MAX_DRAFTING_SEQS = 8
"""With more running, a step has rows enough."""


def is_drafting(running: list[Sequence], config: SchedulerConfig) -> bool:
    """Whether the next step may have drafts, and so waits for the tokens of the last."""
    return config.num_draft_tokens > 0 and len(running) <= MAX_DRAFTING_SEQS


def draft_rows(
    decoding: list[Sequence], most: int, config: SchedulerConfig, pool: BlockPool
) -> list[ScheduledSequence]:
    """At most `most` rows for drafts, behind those of `decoding`, whose tokens of this step have their slots.

    They take blocks that nobody has, never another sequence's.
    """
    rows: list[ScheduledSequence] = []
    for sequence in decoding:
        # The last token of all is sampled by the row of the one before it.
        wanted = min(config.num_draft_tokens, most - len(rows), sequence.limit - sequence.num_tokens - 1)
        if wanted <= 0 or sequence.has_penalties:  # penalties count what was said, and a draft may not be said
            continue
        table = sequence.block_table
        num_slots = (len(table.block_ids) + pool.num_free_blocks) * table.block_size
        planned = sequence.plan_drafts(min(wanted, num_slots - sequence.num_tokens))
        table.block_ids += pool.allocate(table.num_missing_blocks(sequence.num_tokens + len(planned)))
        rows += planned
    return rows


def is_accepted(row: ScheduledSequence, sequence: Sequence, sampled: SampledToken | None) -> bool:
    """Whether the draft of this row is the token that the rows before it gave, so that what it sampled comes next.

    Numbers that are broken behind a draft are left alone: the row comes again without it, and fails then.
    """
    goes_on = sequence.status is SequenceStatus.RUNNING and sequence.token_ids[row.start :] == row.token_ids
    return goes_on and sampled is not None and sampled.error is None
