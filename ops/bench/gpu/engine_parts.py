"""The engine without HTTP: many requests at once, and one alone."""

from __future__ import annotations

import time

from batching.device_ops import TorchOps
from batching.engine import EngineCore, build_engine
from contracts.generation import GenerationDelta
from ops.bench.gpu.drive import Driven, drive, runs_ahead
from ops.bench.gpu.floors import RequestLengths, batch_floor_s, token_floor_s
from ops.bench.gpu.plan import Plan, engine_settings
from ops.bench.gpu.rows import RowFile
from ops.bench.gpu.workload import draw_requests, greedy_request, lengths_of

NUM_STREAMS = 3
"""The first compiles and captures; the fastest of the others counts."""


def measure_offline(plan: Plan, rows: RowFile) -> None:
    """The workload twice with other prompts: the first run compiles and captures, the second one counts."""
    deadline_s = plan.deadline_s()
    size = plan.sizes.workload
    core = _build(plan, rows, max_num_seqs=size.num_requests, max_model_len=size.max_len)
    requests = draw_requests(size, plan.model.vocab_size, number=0)
    lengths = lengths_of(requests)
    num_prompt, num_output = (sum(getattr(one, kind) for one in lengths) for kind in ("prompt", "output"))
    print(f"  {len(requests)} requests, {num_prompt:,} prompt and {num_output:,} output tokens", flush=True)
    floor = num_output / batch_floor_s(plan.model, plan.machine, lengths, plan.kv_item_bytes)
    first = drive(core, requests, deadline_s=deadline_s)
    _add_speed(rows, "first run, compiling", first, floor)
    if first.is_complete:
        again = draw_requests(size, plan.model.vocab_size, number=1)
        second = drive(core, again, deadline_s=deadline_s)
        _add_speed(rows, f"{len(requests)} requests at once", second, floor)
        rows.add(
            "a step of it", second.taken_s / max(1, second.num_steps) * 1e3, "ms", note=f"{second.num_steps} steps"
        )


def measure_stream(plan: Plan, rows: RowFile) -> None:
    """One request alone: time to the first token, then milliseconds for each further one."""
    sizes, deadline_s = plan.sizes, plan.deadline_s()
    total = sizes.stream_prompt_len + sizes.stream_output_len
    core = _build(plan, rows, max_num_seqs=1, max_model_len=total)
    firsts_ms: list[float] = []
    tokens_ms: list[float] = []
    for number in range(NUM_STREAMS):
        seen_s: list[float] = []

        def note(delta: GenerationDelta, at_s: float, seen_s: list[float] = seen_s) -> None:
            seen_s.extend([at_s] * len(delta.token_ids))

        prompt = [(7 * index + number) % plan.model.vocab_size for index in range(sizes.stream_prompt_len)]
        request = greedy_request(f"stream-{number}", prompt, sizes.stream_output_len)
        began_s = time.monotonic()
        driven = drive(core, [request], deadline_s=deadline_s, observe=note)
        if driven.errors or not driven.is_complete:
            raise RuntimeError(f"stream {number} failed: {driven.errors or 'the time was up'}")
        firsts_ms.append((seen_s[0] - began_s) * 1e3)
        tokens_ms.append((seen_s[-1] - seen_s[0]) / (len(seen_s) - 1) * 1e3)
        print(f"  stream {number}: first {firsts_ms[-1]:.2f} ms, then {tokens_ms[-1]:.3f} ms a token", flush=True)
    context_len = sizes.stream_prompt_len + sizes.stream_output_len // 2
    floor_ms = token_floor_s(plan.model, plan.machine, context_len, plan.kv_item_bytes) * 1e3
    rows.add("one stream, a token", min(tokens_ms[1:]), "ms", floor_ms)
    prompt_lengths = [RequestLengths(sizes.stream_prompt_len, 1)]
    first_floor_ms = batch_floor_s(plan.model, plan.machine, prompt_lengths, plan.kv_item_bytes) * 1e3
    rows.add(f"first token after {sizes.stream_prompt_len}", min(firsts_ms[1:]), "ms", first_floor_ms)


def _build(plan: Plan, rows: RowFile, *, max_num_seqs: int, max_model_len: int) -> EngineCore:
    """The engine as the server builds it."""
    began_s = time.monotonic()
    settings = engine_settings(plan, max_num_seqs=max_num_seqs, max_model_len=max_model_len)
    core = build_engine(settings, print_stage, TorchOps() if plan.has_torch_ops else None)
    kind = f"{type(core.runner).__name__}, {core.forward_name}{', one step ahead' if runs_ahead(core) else ''}"
    rows.add("engine ready", time.monotonic() - began_s, "s", note=f"{kind}; {core.info.num_blocks} blocks")
    return core


def print_stage(stage: str, fraction: float | None) -> None:
    """A ProgressCallback: what begins now."""
    if not fraction:
        print(f"  {stage}", flush=True)


def _add_speed(rows: RowFile, figure: str, driven: Driven, floor: float) -> None:
    note = "" if driven.is_complete else "stopped: the time of this part was used up"
    if driven.errors:
        note = f"{len(driven.errors)} failed: {driven.errors[0]}"
    rows.add(figure, driven.num_tokens / driven.taken_s, "tokens/s", floor, is_more_better=True, note=note)
    if driven.errors:
        raise RuntimeError(note)
