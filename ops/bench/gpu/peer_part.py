"""transformers' own continuous batching on the same workload, with the same weights, on the same device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from contracts.generation import GenerationRequest
from ops.bench.gpu.floors import batch_floor_s
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile
from ops.bench.gpu.workload import draw_requests, lengths_of

CONTINUOUS_BATCHING = "transformers.generation.continuous_batching.continuous_api"
ATTENTION = ("sdpa", "eager")
"""Tried in this order; it switches to flash attention by itself where that is installed."""
STOP_TIMEOUT_S = 5.0
POLL_S = 1.0
NUM_WARM_UP = 16
"""Requests before those that count."""


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
        try:
            num_tokens, num_done, taken_s = run_warm(model, plan, requests, deadline_s)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            print(f"  {attention}: {type(error).__name__}: {error}", flush=True)
            continue
        if num_done:
            note = f"transformers, {attention}; {num_done} of {len(requests)} requests ended"
            rows.add("continuous batching", num_tokens / taken_s, "tokens/s", floor, is_more_better=True, note=note)
            return
        print(f"  nothing ended with {attention}", flush=True)
        del model
    raise RuntimeError("no request ended, whatever the attention")


def run_warm(
    model: Any, plan: Plan, requests: Sequence[GenerationRequest], deadline_s: float
) -> tuple[int, int, float]:
    """`run` after some other requests, as the engine's own second run is what counts."""
    config = GenerationConfig(do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0)
    others = draw_requests(plan.sizes.workload, plan.model.vocab_size, number=1)[:NUM_WARM_UP]
    with model.continuous_batching_context_manager(
        generation_config=config, timeout=STOP_TIMEOUT_S, **hints(model, plan, requests)
    ) as manager:
        run(manager, others, deadline_s)
        return run(manager, requests, deadline_s)


def hints(model: Any, plan: Plan, requests: Sequence[GenerationRequest]) -> dict[str, object]:
    """What its own generate_batch would tell it of the requests, as far as this version takes it."""
    told: dict[str, object] = {}
    if plan.device == "cpu":  # it would take all memory for its cache, and fill it once
        told["continuous_batching_config"] = import_module("transformers").ContinuousBatchingConfig(
            num_blocks=64, max_batch_tokens=512
        )
    make_hints = getattr(import_module(CONTINUOUS_BATCHING), "WorkloadHints", None)
    if make_hints is not None and "workload_hints" in signature(model.init_continuous_batching).parameters:
        lengths = lengths_of(requests)
        known = {
            "max_prompt_length": max(one.prompt for one in lengths),
            "max_generated_length": max(one.output for one in lengths),
            "num_requests": len(lengths),
        }
        taken = set(signature(make_hints).parameters)
        told["workload_hints"] = make_hints(**{name: value for name, value in known.items() if name in taken})
    return told


def run(manager: Any, requests: Sequence[GenerationRequest], deadline_s: float) -> tuple[int, int, float]:
    """Output tokens and number of the requests that ended without an error, and the seconds until the last one."""
    num_tokens = num_done = num_ended = 0
    began_s = time.monotonic()
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
        elif result.error is not None:
            print(f"  {result.error}", flush=True)
            num_ended += 1
        elif result.is_finished():
            num_ended, num_done = num_ended + 1, num_done + 1
            num_tokens += len(result.generated_tokens)
    return num_tokens, num_done, max(time.monotonic() - began_s, 1e-9)
