"""The two frozen structs that cross between the scheduler and the runner, once a step each way. No torch."""

from __future__ import annotations

import msgspec

from contracts.generation import TokenLogprob
from contracts.sampling import SamplingParams

UNKNOWN_TOKEN = -1
"""Stands for the token that the step before samples: only the runner has it. Always alone, in a row that decodes."""
UNKNOWN_TOKENS = [UNKNOWN_TOKEN]
"""The one list that all such rows share."""


class ScheduledSequence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One row of the packed batch: compute `token_ids` at positions start .. start + len - 1 of one sequence."""

    seq_id: int
    token_ids: list[int]
    start: int
    """Position of the first of token_ids; as many tokens of this sequence are in the KV cache already."""
    block_ids: list[int]
    """Block table: position p lives in block_ids[p // block_size] at offset p % block_size.

    The scheduler may append to it while the step is in flight, and changes nothing else.
    """
    is_sampling: bool
    """The last of token_ids is the last known token: its logits choose the next one."""
    sampling: SamplingParams
    seed: int
    """Noise seed of this sample (derived from the request's seed and the sample index)."""
    num_output_tokens: int
    """Tokens generated before this step."""
    prompt_token_ids: list[int] | None = None
    output_token_ids: list[int] | None = None
    """The history, only where penalties need it; copies, safe to read in another thread."""

    num_drafts_before: int = 0
    """Above 0 in a row whose token is a draft: so many rows of the same sequence stand before it and hold the tokens
    that it follows, drafts but for the first. To the runner it is a row like any other."""

    @property
    def context_len(self) -> int:
        """Tokens that the last position attends to, itself included."""
        return self.start + len(self.token_ids)


class SchedulerOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of one step; decodes come first, then prefill chunks."""

    step_id: int
    sequences: list[ScheduledSequence]
    num_tokens: int
    num_decodes: int
    """How many of the leading `sequences` have exactly one token and sample, those with drafts among them."""
    num_drafts: int = 0
    """How many rows verify drafts."""
    blocks_to_clear: list[int] = []
    """Blocks that held broken numbers: the runner zeroes them before it computes."""
    began_s: float = 0.0
    """When it was planned, on the scheduler's clock."""


def halved_rows(plan: SchedulerOutput) -> tuple[SchedulerOutput, SchedulerOutput]:
    """Two plans that do the work of one with several rows, one after the other."""
    middle = len(plan.sequences) // 2
    first, last = plan.sequences[:middle], plan.sequences[middle:]
    num_decodes = min(plan.num_decodes, middle)
    return (
        _part(plan, first, num_decodes, plan.blocks_to_clear),
        _part(plan, last, plan.num_decodes - num_decodes, []),
    )


def halved_chunk(plan: SchedulerOutput) -> tuple[SchedulerOutput, SchedulerOutput]:
    """Two plans that do the work of one with a single row of several tokens, one after the other."""
    row = plan.sequences[0]
    middle = len(row.token_ids) // 2
    first = msgspec.structs.replace(row, token_ids=row.token_ids[:middle], is_sampling=False)
    last = msgspec.structs.replace(row, token_ids=row.token_ids[middle:], start=row.start + middle)
    return _part(plan, [first], 0, plan.blocks_to_clear), _part(plan, [last], 0, [])


def _part(
    plan: SchedulerOutput, rows: list[ScheduledSequence], num_decodes: int, blocks_to_clear: list[int]
) -> SchedulerOutput:
    return SchedulerOutput(
        step_id=plan.step_id,
        sequences=rows,
        num_tokens=sum(len(row.token_ids) for row in rows),
        num_decodes=num_decodes,
        blocks_to_clear=blocks_to_clear,
        began_s=plan.began_s,
    )


class SampledToken(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the sampler chose for one row, or why it could not."""

    token_id: int
    logprob: TokenLogprob | None = None
    error: str | None = None
    """Set when the row's logits are not finite, whether or not it samples: the sequence fails alone."""


class StepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one step: one SampledToken per scheduled sequence, None where it was sound and not sampling."""

    step_id: int
    sampled: list[SampledToken | None]
    duration_s: float
    was_out_of_memory: bool = False
    """The step as planned did not fit into memory and was computed in parts; nothing is lost."""
