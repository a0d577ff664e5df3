"""transformers' own continuous batching on the same workload, with the same weights, on the same device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from contracts.generation import GenerationRequest
from ops.bench.gpu.floors import batch_floor_s
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile
from ops.bench.gpu.workload import draw_requests, lengths_of

ATTENTION = ("sdpa", "eager")
"""Tried in this order; it switches to flash attention by itself where that is installed."""
STOP_TIMEOUT_S = 5.0
POLL_S = 1.0


def measure_transformers(plan: Plan, rows: RowFile) -> None:
    """Tokens of the requests that ended, over the time; stops when the time of this part is used up."""
    deadline_s = plan.deadline_s()
    requests = draw_requests(plan.sizes.workload, plan.model.vocab_size, number=0)
    num_output = sum(request.sampling.max_tokens for request in requests)
    floor = num_output / batch_floor_s(plan.model, plan.machine, lengths_of(requests), plan.kv_item_bytes)
    for attention in ATTENTION:
        model = AutoModelForCausalLM.from_pretrained(
            plan.directory, dtype=torch.bfloat16, attn_implementation=attention, local_files_only=True
        )
        model = model.to(plan.device).eval()
        if not hasattr(model, "continuous_batching_context_manager"):
            rows.add("continuous batching", None, "tokens/s", note="this version of transformers has none")
            return
        num_tokens, num_done, taken_s = run(model, requests, deadline_s)
        if num_done:
            note = f"transformers, {attention}; {num_done} of {len(requests)} requests ended"
            rows.add("continuous batching", num_tokens / taken_s, "tokens/s", floor, is_more_better=True, note=note)
            return
        print(f"  nothing ended with {attention}", flush=True)
        del model
    raise RuntimeError("no request ended, whatever the attention")


def run(model: Any, requests: Sequence[GenerationRequest], deadline_s: float) -> tuple[int, int, float]:
    """Output tokens and number of the requests that ended without an error, and the seconds until the last one."""
    config = GenerationConfig(do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0)
    num_tokens = num_done = num_ended = 0
    with model.continuous_batching_context_manager(generation_config=config, timeout=STOP_TIMEOUT_S) as manager:
        began_s = ended_s = time.monotonic()
        for request in requests:
            manager.add_request(
                input_ids=request.prompt_token_ids,
                request_id=request.request_id,
                max_new_tokens=request.sampling.max_tokens,
                eos_token_id=-1,
            )
        while num_ended < len(requests) and time.monotonic() < deadline_s:
            result = manager.get_result(timeout=POLL_S)
            if result is None:
                if not manager.is_running():
                    print("  its thread has ended", flush=True)
                    break
                continue
            if result.error is not None:
                print(f"  {result.error}", flush=True)
                num_ended += 1
            elif result.is_finished():
                num_ended, num_done, ended_s = num_ended + 1, num_done + 1, time.monotonic()
                num_tokens += len(result.generated_tokens)
        if num_ended < len(requests):
            ended_s = time.monotonic()
    return num_tokens, num_done, max(ended_s - began_s, 1e-9)
