"""The packed tensors of one step, built from the scheduler's plan: what the model and the attention read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from batching.step import ScheduledSequence, SchedulerOutput

IntArray = npt.NDArray[np.int32]


class PrefillRow:
    """A sequence with a chunk of several tokens: `num_tokens` rows from `first_row`, after `start` cached ones."""

    __slots__ = ("block_ids", "first_row", "num_tokens", "start")

    def __init__(self, sequence: ScheduledSequence, first_row: int, block_size: int) -> None:
        self.first_row = first_row
        self.num_tokens = len(sequence.token_ids)
        self.start = sequence.start
        num_blocks = -(-sequence.context_len // block_size)
        self.block_ids = np.asarray(sequence.block_ids[:num_blocks], np.int64)


class StepInput:
    """One packed batch of T tokens: first the single-token rows, then the chunks. Owner: the runner thread.

    ids, positions `[T] int64`; block_of, offset_of `[T] int32`: where the K and V of each token go;
    tables `[D, max_blocks] int32` and context_lens `[D] int32` of the D single-token rows; logit_rows: the last row of
    every sequence, first of those that sample (sample_rows; sample_index is where they stand in the plan), then of
    those that do not, whose logits only show whether their numbers are sound (checked, checked_index).
    """

    __slots__ = (
        "block_of",
        "checked",
        "checked_index",
        "context_lens",
        "ids",
        "logit_rows",
        "num_single",
        "num_tokens",
        "offset_of",
        "positions",
        "prefills",
        "sample_index",
        "sample_rows",
        "sampling",
        "tables",
    )

    def __init__(self, plan: SchedulerOutput, block_size: int) -> None:
        numbered = list(enumerate(plan.sequences))
        singles = [(index, sequence) for index, sequence in numbered if len(sequence.token_ids) == 1]
        chunks = [(index, sequence) for index, sequence in numbered if len(sequence.token_ids) > 1]
        self.num_single = len(singles)
        self.num_tokens = plan.num_tokens
        self._fill_tokens([sequence for _, sequence in singles + chunks], block_size)
        self._fill_tables([sequence for _, sequence in singles], block_size)
        self.prefills: list[PrefillRow] = []
        self.sample_rows: list[int] = []
        self.sample_index: list[int] = []
        self.sampling: list[ScheduledSequence] = []
        self.checked_index: list[int] = []
        self.checked: list[ScheduledSequence] = []
        checked_rows: list[int] = []
        row = 0
        for index, sequence in singles + chunks:
            if len(sequence.token_ids) > 1:
                self.prefills.append(PrefillRow(sequence, row, block_size))
            row += len(sequence.token_ids)
            if sequence.is_sampling:
                self.sample_rows.append(row - 1)
                self.sample_index.append(index)
                self.sampling.append(sequence)
            else:
                checked_rows.append(row - 1)
                self.checked_index.append(index)
                self.checked.append(sequence)
        self.logit_rows = self.sample_rows + checked_rows

    def _fill_tokens(self, ordered: list[ScheduledSequence], block_size: int) -> None:
        ids: list[int] = []
        positions: list[int] = []
        blocks: list[int] = []
        for sequence in ordered:
            ids += sequence.token_ids
            for position in range(sequence.start, sequence.context_len):
                positions.append(position)
                blocks.append(sequence.block_ids[position // block_size])
        self.ids = np.array(ids, np.int64)
        self.positions = np.array(positions, np.int64)
        self.block_of = np.array(blocks, np.int32)
        self.offset_of = (self.positions % block_size).astype(np.int32)

    def _fill_tables(self, singles: list[ScheduledSequence], block_size: int) -> None:
        lens = [sequence.context_len for sequence in singles]
        widths = [-(-length // block_size) for length in lens]
        self.context_lens: IntArray = np.array(lens, np.int32)
        self.tables: IntArray = np.zeros((len(singles), max(widths, default=0)), np.int32)
        for row, (sequence, width) in enumerate(zip(singles, widths, strict=True)):
            self.tables[row, :width] = sequence.block_ids[:width]


def input_ids(step: StepInput, device: torch.device) -> torch.Tensor:
    """`[1, T] int64` on the device."""
    return torch.from_numpy(step.ids).to(device).unsqueeze(0)


def position_ids(step: StepInput, device: torch.device) -> torch.Tensor:
    """`[1, T] int64` on the device."""
    return torch.from_numpy(step.positions).to(device).unsqueeze(0)
