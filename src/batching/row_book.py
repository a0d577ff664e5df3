"""Which sequence owns which device row, and what has to be sent before a plan can be computed.

The host's half of batching.row_tables: it remembers what every row of the device knows of its sequence and sends the
difference alone. A decode that goes on costs a lookup and, once in a block, the id of the new block; the token that it
computes is on the device already. Knows no device: plans in, integers out.

Owner: the runner, which takes a plan with `begin` and then says whether it was launched (`keep`) or not (`undo`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batching import row_tables
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, SPLIT_TOKENS
from batching.row_tables import NUM_TOKENS, RECORD_WORDS, RowShape
from batching.step import UNKNOWN_TOKEN, ScheduledSequence, SchedulerOutput
from contracts.sampling import SamplingParams

IntArray = npt.NDArray[np.int32]


MAX_DRAFT_BITS = 5
"""A sequence has at most 31 drafts in a step."""


class Slots:
    """What one device row knows of its sequence."""

    __slots__ = ("block_ids", "is_decoding", "last_step", "next_start", "row", "sampling")

    def __init__(self, row: int) -> None:
        self.row = row
        self.next_start = 0
        """Tokens that the device will have computed after the last plan."""
        self.is_decoding = False
        """The last plan sampled, so the device has the token at next_start."""
        self.last_step = 0
        self.sampling: SamplingParams | None = None
        """Of the request itself: another object means another request, whatever its id."""
        self.block_ids: list[int] = []


class Writes:
    """Runs of words of the arena and what is to stand there; no word twice in one plan."""

    __slots__ = ("_firsts", "_lens", "_values")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lens: list[int] = []
        self._values: list[int] = []

    def add(self, first: int, values: Sequence[int]) -> None:
        if values:
            self._firsts.append(first)
            self._lens.append(len(values))
            self._values += values

    def __len__(self) -> int:
        return len(self._values)

    def words(self) -> IntArray:
        lens = np.array(self._lens, np.int64)
        shifts = np.array(self._firsts, np.int64) - np.cumsum(lens) + lens
        return (np.repeat(shifts, lens) + np.arange(len(self._values))).astype(np.int32)

    def values(self) -> IntArray:
        return np.array(self._values, np.int32)


def packed_writes(writes: Writes) -> IntArray:
    """`[2, n] int32`: words and values, as apply_differences takes them."""
    return np.stack([writes.words(), writes.values()])


class RowPlan:
    """A plan as the device takes it: the rows in their order (single tokens, then chunks) and what to send first."""

    __slots__ = ("context_lens", "counts", "num_singles", "order", "rows", "writes")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.counts: list[int] = []
        """Tokens that each row computes."""
        self.context_lens: list[int] = []
        self.num_singles = 0
        self.order: list[int] | None = None
        """Where each row stands in the plan; None: in the same place."""
        self.writes = Writes()

    @property
    def max_context_len(self) -> int:
        return max(self.context_lens, default=0)

    @property
    def max_short_queries(self) -> int:
        """Tokens of the longest row whose context is split; 0 where there is none."""
        short = [count for count in self.counts[self.num_singles :] if count <= MAX_SHORT_QUERIES]
        return max(short, default=1 if self.num_singles else 0)

    @property
    def has_chunks(self) -> bool:
        return any(count > MAX_SHORT_QUERIES for count in self.counts[self.num_singles :])

    def num_parts(self) -> int:
        """Parts that split attention leaves to its reduction, as paged_attention_config.num_parts_of counts them."""
        if self.max_context_len <= SPLIT_TOKENS:
            return 0
        return sum(
            count * -(-context_len // SPLIT_TOKENS)
            for count, context_len in zip(self.counts, self.context_lens, strict=True)
            if count <= MAX_SHORT_QUERIES and context_len > SPLIT_TOKENS
        )


class RowBook:
    """See the module. Every plan taken is kept or undone before the next one."""

    def __init__(self, shape: RowShape, block_size: int, eos_token_ids: frozenset[int]) -> None:
        self._shape = shape
        self._block_size = block_size
        self._eos_token_ids = eos_token_ids
        self._slots: dict[int, Slots] = {}
        self._free = list(range(shape.num_rows - 1, -1, -1))
        self._step = 0
        self._went_on: list[Slots] = []
        self._changed: list[tuple[Slots, int, bool, list[int]]] = []
        self._entered: list[int] = []

    def row_of(self, seq_id: int) -> int | None:
        """The row of a sequence, None where it has none."""
        slots = self._slots.get(seq_id)
        return None if slots is None else slots.row

    def begin(self, plan: SchedulerOutput) -> RowPlan:
        """Rows and differences of a plan; ValueError, with nothing changed, for one that cannot be sent."""
        self._step += 1
        self._went_on, self._changed, self._entered = [], [], []
        try:
            return self._taken(plan)
        except BaseException:
            self.undo()
            raise

    def keep(self) -> None:
        """The plan was launched."""
        self._went_on, self._changed, self._entered = [], [], []

    def undo(self) -> None:
        """The plan was not launched: what it changed is as it was, and rows that it gave away are free."""
        self._step -= 1
        for slots in self._went_on:
            slots.next_start -= 1
        for slots, next_start, is_decoding, block_ids in self._changed:
            slots.next_start, slots.is_decoding, slots.block_ids = next_start, is_decoding, block_ids
        for seq_id in self._entered:
            self._free.append(self._slots.pop(seq_id).row)
        self.keep()

    def _taken(self, plan: SchedulerOutput) -> RowPlan:
        row_plan = RowPlan()
        is_all_decodes = plan.num_decodes == len(plan.sequences)
        ordered = plan.sequences
        if not is_all_decodes:
            ordered = self._ordered(plan, row_plan)
        found = self._find(ordered, plan.num_decodes)
        self._write_changes(ordered, found, row_plan.writes)
        row_plan.rows = [slots.row for slots in found if slots is not None]
        row_plan.context_lens = [slots.next_start for slots in found if slots is not None]
        if is_all_decodes:
            row_plan.num_singles = len(ordered)
            row_plan.counts = [1] * len(ordered)
        return row_plan

    def _ordered(self, plan: SchedulerOutput, row_plan: RowPlan) -> list[ScheduledSequence]:
        """The sequences with single tokens first."""
        lens = [len(sequence.token_ids) for sequence in plan.sequences]
        order = sorted(range(len(lens)), key=lambda index: lens[index] > 1)
        row_plan.counts = [lens[index] for index in order]
        row_plan.num_singles = sum(length == 1 for length in lens)
        row_plan.order = order
        return [plan.sequences[index] for index in order]

    def _find(self, ordered: list[ScheduledSequence], num_decodes: int) -> list[Slots | None]:
        """The slots of decodes that go on within a block, which cost nothing more; None for all others.

        Sequences without a row come last, so that no row of this plan is given away.
        """
        step, block_size, find, went_on = self._step, self._block_size, self._slots.get, self._went_on
        found: list[Slots | None] = []
        for sequence in ordered[:num_decodes]:
            slots = find(sequence.seq_id)
            start = sequence.start
            if (
                slots is None
                or slots.next_start != start
                or not slots.is_decoding
                or slots.sampling is not sequence.sampling
                or not start % block_size
                or sequence.num_drafts_before
            ):
                found.append(None)
                continue
            slots.next_start = start + 1
            slots.last_step = step
            went_on.append(slots)
            found.append(slots)
        found += [None] * (len(ordered) - len(found))
        return found

    def _write_changes(self, ordered: list[ScheduledSequence], found: list[Slots | None], writes: Writes) -> None:
        """Fill the gaps of `found`: sequences whose row goes on, then those that get another one."""
        missing: list[int] = []
        for index, slots in enumerate(found):
            if slots is None:
                known = self._slots.get(_key(ordered[index]))
                if known is not None:
                    known.last_step = self._step
                if known is None or not _goes_on(known, ordered[index]):
                    missing.append(index)
                else:
                    found[index] = self._go_on(known, ordered[index], writes)
        if missing:
            num_new = sum(_key(ordered[index]) not in self._slots for index in missing)
            self._reclaim(num_new - len(self._free))
            for index in missing:
                found[index] = self._enter(ordered[index], writes)

    def _go_on(self, slots: Slots, sequence: ScheduledSequence, writes: Writes) -> Slots:
        self._changed.append((slots, slots.next_start, slots.is_decoding, slots.block_ids))
        is_decode = slots.is_decoding and sequence.is_sampling and len(sequence.token_ids) == 1
        if not is_decode:
            _check_known(sequence)
            record = [_num_known(sequence), sequence.start, _prompt_len(sequence)]
            writes.add(slots.row * RECORD_WORDS + NUM_TOKENS, record)
            writes.add(self._token_word(slots.row) + sequence.start, sequence.token_ids)
        num_known = len(slots.block_ids)
        if sequence.block_ids[:num_known] != slots.block_ids:
            # Preempted, and back with other blocks of the same content up to the same token.
            num_known = 0
        writes.add(self._block_word(slots.row) + num_known, sequence.block_ids[num_known:])
        return _after(slots, sequence)

    def _enter(self, sequence: ScheduledSequence, writes: Writes) -> Slots:
        """A sequence of which the device knows nothing, or something else: all of it is sent."""
        _check_known(sequence)
        edits = row_tables.edits_of(sequence, self._eos_token_ids)
        if len(edits) > self._shape.max_edits:
            raise ValueError(f"{len(edits)} edited token ids, at most {self._shape.max_edits} fit into a row.")
        key = _key(sequence)
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = Slots(self._free.pop())
        self._entered.append(key)
        slots.last_step = self._step
        slots.sampling = sequence.sampling
        row = slots.row
        record = row_tables.pack_record(
            sequence, num_tokens=_num_known(sequence), prompt_len=_prompt_len(sequence), num_edits=len(edits)
        )
        writes.add(row * RECORD_WORDS, record.tolist())
        history = [*(sequence.prompt_token_ids or ()), *(sequence.output_token_ids or ())]
        writes.add(self._token_word(row), history)
        if len(history) <= sequence.start:
            writes.add(self._token_word(row) + sequence.start, sequence.token_ids)
        writes.add(self._block_word(row), sequence.block_ids)
        first_edit = row * self._shape.max_edits
        values = np.array([value for _, value in edits], np.float32).view(np.int32).tolist()
        writes.add(self._shape.first_edit_id_word + first_edit, [token_id for token_id, _ in edits])
        writes.add(self._shape.first_edit_value_word + first_edit, values)
        return _after(slots, sequence)

    def _reclaim(self, num_rows: int) -> None:
        """Take rows back, the least recently planned first, and none of the last two plans."""
        if num_rows <= 0:
            return
        stale = [(slots.last_step, seq_id) for seq_id, slots in self._slots.items() if slots.last_step < self._step - 1]
        if len(stale) < num_rows:
            raise ValueError(
                f"{num_rows} more rows are needed than there are: the device has {self._shape.num_rows}, which is "
                "enough for two plans of at most half as many sequences."
            )
        for _, seq_id in heapq.nsmallest(num_rows, stale):
            self._free.append(self._slots.pop(seq_id).row)

    def _token_word(self, row: int) -> int:
        return self._shape.first_token_word + row * self._shape.max_len

    def _block_word(self, row: int) -> int:
        return self._shape.first_block_word + row * self._shape.max_blocks


def _key(sequence: ScheduledSequence) -> int:
    """A sequence has a row of its own, and so has each draft behind it."""
    if not sequence.num_drafts_before:
        return sequence.seq_id
    return -(sequence.seq_id << MAX_DRAFT_BITS | sequence.num_drafts_before)


def _goes_on(slots: Slots, sequence: ScheduledSequence) -> bool:
    """The device knows all of it but what is in the plan; of a draft it has another token than the plan, or none."""
    is_next = slots.next_start == sequence.start and slots.sampling is sequence.sampling
    return is_next and not sequence.num_drafts_before


def _after(slots: Slots, sequence: ScheduledSequence) -> Slots:
    """What the device will know when it has computed this."""
    slots.next_start = sequence.context_len
    slots.is_decoding = sequence.is_sampling
    slots.block_ids = sequence.block_ids.copy()
    return slots


def _check_known(sequence: ScheduledSequence) -> None:
    if sequence.token_ids[-1] == UNKNOWN_TOKEN:
        raise ValueError(
            f"the plan takes the token of sequence {sequence.seq_id} at position {sequence.start} from the device, "
            "which does not have it."
        )


def _num_known(sequence: ScheduledSequence) -> int:
    """NUM_TOKENS of its record: the device samples where all known tokens are computed."""
    return sequence.context_len + (0 if sequence.is_sampling else 1)


def _prompt_len(sequence: ScheduledSequence) -> int:
    """Of a row that samples; before that nobody asks."""
    return sequence.context_len - sequence.num_output_tokens
