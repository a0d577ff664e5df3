"""Random rows and plans for the step input, and what StepInput makes of the same plan on the host."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

from batching import row_tables
from batching.kernels.step_input_torch import StepInputs
from batching.row_tables import Differences, RowShape, RowTables
from batching.step import ScheduledSequence, SchedulerOutput
from contracts.sampling import SamplingParams

BLOCK_SIZE = 4
TRASH_BLOCK = 999
SHAPE = RowShape(num_rows=9, max_len=60, max_blocks=15, max_edits=3)
LONG_SHAPE = RowShape(num_rows=9, max_len=1800, max_blocks=450, max_edits=3)
"""Whose contexts attention splits."""


@dataclass(frozen=True)
class PlanCase:
    num_decodes: int
    chunk_lens: tuple[int, ...]
    num_tokens: int
    """Tokens of the bucket."""
    num_rows: int
    seed: int = 0
    shape: RowShape = SHAPE


PLAN_CASES = (
    PlanCase(1, (), 1, 1),
    PlanCase(5, (), 8, 8),
    PlanCase(8, (), 8, 8, seed=1),
    PlanCase(0, (40,), 64, 2, seed=2),
    PlanCase(3, (7, 33, 2), 64, 9, seed=3),
    PlanCase(2, (20, 45), 67, 5, seed=4),
    PlanCase(0, (), 4, 3, seed=5),
    PlanCase(5, (9, 16, 17), 64, 9, seed=6, shape=LONG_SHAPE),
)


@dataclass(frozen=True)
class Planned:
    """A plan of the scheduler, and the same one as rows of the tables."""

    scheduled: SchedulerOutput
    plan: torch.Tensor
    packed: torch.Tensor
    rows: list[int]


def make_planned(case: PlanCase, device: torch.device) -> Planned:
    draw = random.Random(case.seed)
    shape = case.shape
    rows = draw.sample(range(shape.num_rows), case.num_decodes + len(case.chunk_lens))
    differences = Differences(shape)
    lens = [1] * case.num_decodes + list(case.chunk_lens)
    sequences = [make_sequence(draw, num_new, shape) for num_new in lens]
    for row, sequence in zip(rows, sequences, strict=True):
        num_known = sequence.context_len + (0 if sequence.is_sampling else 3)
        record = row_tables.pack_record(sequence, num_tokens=num_known, prompt_len=1, num_edits=0)
        differences.record(row, 0, record)
        differences.tokens(row, sequence.start, sequence.token_ids)
        differences.blocks(row, 0, sequence.block_ids)
    plan = np.zeros((2, case.num_rows), np.int32)
    plan[0, : len(rows)], plan[1, : len(rows)] = rows, lens
    output = SchedulerOutput(step_id=0, sequences=sequences, num_tokens=sum(lens), num_decodes=case.num_decodes)
    packed = torch.from_numpy(differences.packed(6000)).to(device)
    return Planned(output, torch.from_numpy(plan).to(device), packed, rows)


def make_sequence(draw: random.Random, num_new: int, shape: RowShape) -> ScheduledSequence:
    start = draw.randrange(0, shape.max_len - num_new - 3)
    return ScheduledSequence(
        seq_id=0,
        token_ids=[draw.randrange(50_000) for _ in range(num_new)],
        start=start,
        block_ids=draw.sample(range(900), -(-(start + num_new) // BLOCK_SIZE)),
        is_sampling=num_new == 1 or draw.random() < 0.5,
        sampling=SamplingParams(),
        seed=0,
        num_output_tokens=0,
    )


def make_inputs(case: PlanCase, device: torch.device) -> StepInputs:
    """Inputs that a former step has left full of other numbers."""
    inputs = StepInputs(case.num_tokens, case.num_rows, block_size=BLOCK_SIZE, trash_block=TRASH_BLOCK, device=device)
    for tensor in tensors_of(inputs).values():
        tensor.fill_(77)
    inputs.query_starts[0] = 0
    return inputs


def make_tables(device: torch.device, shape: RowShape = SHAPE) -> RowTables:
    tables = RowTables(shape, device)
    tables.arena.fill_(-5)
    return tables


def tensors_of(inputs: StepInputs) -> dict[str, torch.Tensor]:
    names = [name for name in StepInputs.__slots__ if name not in {"block_size", "trash_block"}]
    return {name: getattr(inputs, name) for name in names}


def as_lists(inputs: StepInputs) -> dict[str, list[int]]:
    return {name: tensor.tolist() for name, tensor in tensors_of(inputs).items()}
