"""Tries launch configurations of the paged attention kernels and prints rows for paged_attention_config.MEASURED."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from triton.errors import TritonError

from batching.kernels.paged_attention_config import MEASURED, LaunchConfig, LaunchShape, launch_config, padded
from ops.bench.gpu.attention_case import AttentionCase, CaseShape
from ops.bench.gpu.device_clock import seconds_of
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile

TOLERANCE = 3e-2
DECODES = (
    CaseShape(batch=16, context_len=8192, is_decode=True),
    CaseShape(batch=256, context_len=1024, is_decode=True),
)
PROMPTS = (CaseShape(batch=8, context_len=512, is_decode=False), CaseShape(batch=1, context_len=8192, is_decode=False))


def tune(plan: Plan, rows: RowFile, cache_dtype: torch.dtype, deadline_s: float) -> None:
    """Leave the best configuration of each kind in MEASURED, for the rest of this process."""
    half_s = (time.monotonic() + deadline_s) / 2
    _tune_kind(plan, rows, DECODES, cache_dtype, half_s)
    _tune_kind(plan, rows, PROMPTS, cache_dtype, deadline_s - (deadline_s - half_s) / 4)


def shape_of(plan: Plan, *, is_split: bool) -> LaunchShape:
    """As the kernels look it up."""
    return LaunchShape(
        is_split=is_split,
        group=plan.model.num_heads // plan.model.num_kv_heads,
        k_dim=plan.model.head_dim,
        v_dim=plan.model.head_dim,
        item_bytes=2,  # the wider of queries and cache
    )


def candidates(shape: LaunchShape) -> Iterator[LaunchConfig]:
    """What is tried; those that need more of the device than it has are skipped as they fail."""
    block_ms = (max(16, padded(shape.group)),) if shape.is_split else (64, 128)
    for block_m in block_ms:
        for block_n in (32, 64, 128):
            for num_warps in (2, 4, 8) if shape.is_split else (4, 8):
                for num_stages in (2, 3, 4):
                    yield LaunchConfig(block_m, block_n, num_warps, num_stages)


def _tune_kind(
    plan: Plan, rows: RowFile, shapes: tuple[CaseShape, ...], cache_dtype: torch.dtype, deadline_s: float
) -> None:
    launch_shape = shape_of(plan, is_split=shapes[0].is_decode)
    device = torch.device(plan.device)
    cases = [AttentionCase(plan.model, shape, device, cache_dtype, is_paged=True) for shape in shapes]
    before = launch_config(launch_shape)
    wanted = [case.attend(0).clone() for case in cases]
    before_s = _mean_s(cases)
    best, best_s, num_tried = before, before_s, 0
    for config in candidates(launch_shape):
        if time.monotonic() > deadline_s:
            break
        num_tried += 1
        MEASURED[launch_shape] = config
        taken_s = _try(cases, wanted)
        print(f"  {config}: {'refused' if taken_s is None else f'{taken_s * 1e6:.1f} us'}", flush=True)
        if taken_s is not None and taken_s < best_s:
            best, best_s = config, taken_s
    MEASURED[launch_shape] = best
    print(f"  {launch_shape}: {best},", flush=True)
    note = f"{num_tried} tried; was {before} at {before_s * 1e6:.1f} us; for MEASURED: {launch_shape}: {best}"
    rows.add(f"best launch, {'decode' if shapes[0].is_decode else 'prompt'}", best_s * 1e6, "us", note=note)


def _try(cases: list[AttentionCase], wanted: list[torch.Tensor]) -> float | None:
    """Seconds with the configuration that stands in MEASURED; None where it fails or says something else."""
    try:
        for case, expected in zip(cases, wanted, strict=True):
            if not torch.allclose(case.attend(0).float(), expected.float(), rtol=TOLERANCE, atol=TOLERANCE):
                return None
        return _mean_s(cases)
    except (TritonError, torch.OutOfMemoryError):
        return None


def _mean_s(cases: list[AttentionCase]) -> float:
    """Geometric, so that a long case does not outweigh a short one."""
    logs = [math.log(seconds_of(case.attend, case.device, num_variants=case.num_layers)) for case in cases]
    return math.exp(sum(logs) / len(logs))
