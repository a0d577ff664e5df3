"""The checkpoint that the other parts load, made once."""

from __future__ import annotations

from pathlib import Path

import torch

from ops.bench.gpu.checkpoint import ensure_checkpoint
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile


def make_checkpoint(plan: Plan, rows: RowFile) -> None:
    """Write the weights, unless they are there from an earlier run."""
    directory = Path(plan.directory)
    taken_s = ensure_checkpoint(plan.model, directory, torch.device(plan.device))
    num_bytes = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    rows.add(f"random weights, {num_bytes / 1e9:.2f} GB", taken_s, "s")
