"""Attention alone, beside what its bytes (decodes) or its operations (prompts) need at least."""

from __future__ import annotations

import time

import torch

from ops.bench.gpu.attention_case import AttentionCase, CaseShape, has_kernels
from ops.bench.gpu.device_clock import seconds_of
from ops.bench.gpu.floors import attention_bytes, attention_flops
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile

MAX_PROMPT_TOKENS = 65_536
"""Of all prompts of a call together: a step has no more."""


def list_shapes(plan: Plan) -> list[CaseShape]:
    """Decodes of every batch and context, then prompts as far as a step could hold them."""
    pairs = [(batch, context) for context in plan.sizes.contexts for batch in plan.sizes.batches]
    decodes = [CaseShape(batch=batch, context_len=context, is_decode=True) for batch, context in pairs]
    prompts = [
        CaseShape(batch=batch, context_len=context, is_decode=False)
        for batch, context in pairs
        if batch * context <= MAX_PROMPT_TOKENS
    ]
    return decodes + prompts


def measure_attention(plan: Plan, rows: RowFile) -> None:
    """A row for every shape that fits into memory and time; with tuning, the best launch configurations first."""
    device = torch.device(plan.device)
    deadline_s = plan.deadline_s()
    cache_dtype = torch.float8_e4m3fn if plan.kv_dtype == "fp8" else torch.bfloat16
    if device.type == "cpu":
        torch.set_num_threads(1)  # products this small only wait for other threads
    if plan.is_tuning:
        if has_kernels(device):
            from ops.bench.gpu.tuning import tune

            tune(plan, rows, cache_dtype, deadline_s)
        else:
            rows.add("launch configurations", None, "", note="skipped: there is nothing to tune without Triton on CUDA")
    for shape in list_shapes(plan):
        figure = f"{'decode' if shape.is_decode else 'prompt'}, {shape.batch} x {shape.context_len} tokens"
        if time.monotonic() > deadline_s:
            rows.add(figure, None, "us", note="skipped: the time of this part is used up")
            continue
        try:
            case = AttentionCase(plan.model, shape, device, cache_dtype, is_paged=has_kernels(device))
        except (MemoryError, torch.OutOfMemoryError) as error:
            rows.add(figure, None, "us", note=f"skipped: {str(error).splitlines()[0]}")
            continue
        taken_s = seconds_of(case.attend, device, num_variants=case.num_layers)
        rows.add(figure, taken_s * 1e6, "us", floor_s(plan, shape) * 1e6)
        del case


def floor_s(plan: Plan, shape: CaseShape) -> float:
    """A decode reads every key and value once; a prompt multiplies every query with every key before it."""
    if shape.is_decode:
        num_bytes = attention_bytes(plan.model, shape.context_len, plan.kv_item_bytes) * shape.batch
        return num_bytes / plan.machine.copy_bytes_per_s
    flops = attention_flops(plan.model, shape.context_len, shape.context_len) * shape.batch
    return flops / plan.machine.flops_per_s
