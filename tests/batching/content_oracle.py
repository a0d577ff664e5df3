"""A fake model that notices every stale, shared, mis-mapped or overwritten KV slot, and what a request says alone.

The value of position p is a hash of the value at p - 1 as read through the block table, the token and p, so it stands
for everything before it; position 0 starts from the request's root (its cache salt, or its id without a shared cache).
The next token is a hash of all values read at positions 0 .. context - 1 and of the row's seed. Knows nothing of the
scheduler: it sees plans, and is told which tokens each sequence should have by whoever drives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import msgspec

from batching.block_table import num_blocks_for
from batching.step import UNKNOWN_TOKEN, SampledToken, ScheduledSequence, SchedulerOutput
from contracts.generation import FinishReason, GenerationRequest

ZERO = 0
"""A cleared slot."""
POISON = -1
"""A slot of a block that is free and forgotten: nobody may attend to it."""
NAN = -2
"""A slot that holds broken numbers: not even the unread end of a block that is in use may hold one."""
BROKEN = "the logits are not finite"

_MASK = 2**64 - 1


class ContentError(AssertionError):
    """A row read something else than its own history, or wrote where it must not."""


class Context(msgspec.Struct, frozen=True):
    """What a sequence should be: its root and all its known tokens."""

    root: int
    token_ids: list[int]

    def with_drafts(self, row: ScheduledSequence, plan: SchedulerOutput) -> Context:
        """What the sequence would be should all drafts up to this row come true."""
        drafts = [
            other.token_ids[0]
            for other in plan.sequences
            if other.seq_id == row.seq_id and 0 < other.num_drafts_before <= row.num_drafts_before
        ]
        return Context(self.root, self.token_ids + drafts)


def mix(*parts: int) -> int:
    """A positive number that depends on all parts; the same in every process."""
    return ((hash(parts) >> 8) & (_MASK >> 8)) + 1


def sample_seed(seed: int, sample_index: int) -> int:
    """The noise seed of one sample: distinct for every sample of a request."""
    return (seed + sample_index * 0x9E3779B97F4A7C15) & _MASK


def slot_values(root: int, token_ids: list[int]) -> list[int]:
    """The KV values of a sequence that is alone: one for each position."""
    values = []
    value = root
    for position, token_id in enumerate(token_ids):
        value = mix(value, token_id, position)
        values.append(value)
    return values


def next_token(seed: int, values: list[int], vocab_size: int) -> int:
    return mix(seed, *values) % vocab_size


def solo_output(
    request: GenerationRequest, sample_index: int, root: int, *, vocab_size: int, eos_token_ids: frozenset[int]
) -> tuple[list[int], FinishReason]:
    """The output tokens and the end that a sample must have, computed with a list and nothing else."""
    sampling = request.sampling
    stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else eos_token_ids)
    seed = sample_seed(sampling.seed, sample_index)
    token_ids = list(request.prompt_token_ids)
    output: list[int] = []
    while len(output) < sampling.max_tokens:
        token_id = next_token(seed, slot_values(root, token_ids), vocab_size)
        token_ids.append(token_id)
        output.append(token_id)
        if token_id in stops:
            return output, FinishReason.STOP
    return output, FinishReason.LENGTH


class FakeModel:
    """KV slots of `num_blocks` blocks, and a forward pass that checks every slot it reads. Owner: the World."""

    def __init__(self, num_blocks: int, block_size: int, vocab_size: int) -> None:
        self.block_size = block_size
        self.vocab_size = vocab_size
        self.values = [POISON] * (num_blocks * block_size)
        self.token_ids = [POISON] * (num_blocks * block_size)
        self.num_computed_tokens = 0

    def execute(
        self,
        plan: SchedulerOutput,
        contexts: Mapping[int, Context],
        nan_rows: Iterable[int] = (),
        wasted_rows: Set[int] = frozenset(),
    ) -> list[SampledToken | None]:
        """Write the slots of all rows, then read every row's history; `nan_rows` write broken numbers and say so.

        What `wasted_rows` write and sample means nothing.
        """
        self.clear(plan.blocks_to_clear)
        of_rows = [contexts[row.seq_id].with_drafts(row, plan) for row in plan.sequences]
        for index, (row, context) in enumerate(zip(plan.sequences, of_rows, strict=True)):
            if index in wasted_rows:
                self.values[self.slot(row.block_ids, row.start)] = POISON
            else:
                self._write(row, context)
        sampled = [
            SampledToken(token_id=0) if index in wasted_rows else self._sample(row, context)
            for index, (row, context) in enumerate(zip(plan.sequences, of_rows, strict=True))
        ]
        for index in nan_rows:
            self.break_row(plan.sequences[index])
            sampled[index] = SampledToken(token_id=0, error=BROKEN)
        return sampled

    def clear(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self._fill(block_id, ZERO)

    def break_row(self, row: ScheduledSequence) -> None:
        """Put broken numbers where this row wrote."""
        for position in range(row.start, row.context_len):
            self.values[self.slot(row.block_ids, position)] = NAN

    def slot(self, block_ids: list[int], position: int) -> int:
        return block_ids[position // self.block_size] * self.block_size + position % self.block_size

    def block_values(self, block_id: int) -> list[int]:
        return self.values[block_id * self.block_size : (block_id + 1) * self.block_size]

    def block_token_ids(self, block_id: int) -> list[int]:
        return self.token_ids[block_id * self.block_size : (block_id + 1) * self.block_size]

    def poison(self, block_id: int) -> None:
        """Overwrite a free, forgotten block; broken numbers stay, to be noticed until they are cleared."""
        start = block_id * self.block_size
        for slot in range(start, start + self.block_size):
            if self.values[slot] != NAN:
                self.values[slot] = self.token_ids[slot] = POISON

    def _fill(self, block_id: int, value: int) -> None:
        start = block_id * self.block_size
        for slot in range(start, start + self.block_size):
            self.values[slot] = self.token_ids[slot] = value

    def _write(self, row: ScheduledSequence, context: Context) -> None:
        token_ids = context.token_ids[row.start : row.context_len]
        if row.token_ids not in (token_ids, [UNKNOWN_TOKEN]):
            raise ContentError(f"row {row.seq_id} computes {row.token_ids} at {row.start} of {context.token_ids}")
        value = context.root if row.start == 0 else self.values[self.slot(row.block_ids, row.start - 1)]
        for position, token_id in enumerate(token_ids, row.start):
            value = mix(value, token_id, position)
            slot = self.slot(row.block_ids, position)
            self.values[slot] = value
            self.token_ids[slot] = token_id
        self.num_computed_tokens += len(row.token_ids)

    def _sample(self, row: ScheduledSequence, context: Context) -> SampledToken | None:
        values = [self.values[self.slot(row.block_ids, position)] for position in range(row.context_len)]
        expected = slot_values(context.root, context.token_ids[: row.context_len])
        if values != expected:
            wrong = [position for position, value in enumerate(values) if value != expected[position]]
            raise ContentError(f"row {row.seq_id} read something foreign at positions {wrong} of {row.block_ids}")
        num_blocks = num_blocks_for(row.context_len, self.block_size)  # the table may have grown since
        if any(NAN in self.block_values(block_id) for block_id in row.block_ids[:num_blocks]):
            raise ContentError(f"row {row.seq_id} was given a block of {row.block_ids} that holds broken numbers")
        if not row.is_sampling:
            return None
        return SampledToken(token_id=next_token(row.seed, values, self.vocab_size))
