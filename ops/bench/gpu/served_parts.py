"""The engine as a process: from its start to its first token, and behind HTTP with a stream for every request."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

from ops.bench.gpu.floors import RequestLengths, batch_floor_s, token_floor_s
from ops.bench.gpu.plan import Plan, engine_settings
from ops.bench.gpu.rows import RowFile
from ops.bench.server_process import ServerProcess, build_quire_command
from service.bench.loader import Loader
from service.bench.metrics import LevelSummary, summarize
from service.bench.runner import Level
from service.bench.workload import LengthRange, Target, WorkloadSpec

NUM_STARTS = 2
"""The first compiles what no earlier part has compiled; the second finds it all on the disk."""
MAX_LOADERS = 4
NUM_STREAMS = 3


def measure_start(plan: Plan, rows: RowFile) -> None:
    """A new process that loads the model and says one token, twice."""
    deadline_s = plan.deadline_s()
    for number in range(1, NUM_STARTS + 1):
        rows.add(f"process start to first token, run {number}", time_first_token(plan, deadline_s), "s")


def time_first_token(plan: Plan, deadline_s: float) -> float:
    """Seconds until `ops.bench.gpu.first_token` has printed its token; RuntimeError where it does not."""
    arguments = [plan.directory, "--device", plan.device, "--kv-dtype", plan.kv_dtype]
    began_s = time.monotonic()
    command = [sys.executable, "-m", "ops.bench.gpu.first_token", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert process.stdout is not None  # noqa: S101 (asked for above)
            while not (line := _read_line(process, deadline_s)).startswith(b"token "):
                if not line:
                    raise RuntimeError("the process ended, or the time was up, before it said a token")
            return time.monotonic() - began_s
        finally:
            process.kill()


def _read_line(process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
    """The next line; empty at the end and when the time is up. The pipe has no buffer that `select` does not see."""
    stdout = process.stdout
    if stdout is None:
        return b""
    ready, _, _ = select.select([stdout], [], [], max(0.0, deadline_s - time.monotonic()))
    return stdout.readline() if ready else b""


def measure_http(plan: Plan, rows: RowFile) -> None:
    """`quire serve` under all requests at once, after the same level as a warm-up; then one stream alone."""
    sizes, deadline_s = plan.sizes, plan.deadline_s()
    num_requests = sizes.num_http_requests
    engine_settings(plan, max_num_seqs=num_requests, max_model_len=1024)  # refuses here what the server would refuse
    command = build_quire_command(plan.directory, "bfloat16", serve_options(plan))
    num_loaders = max(1, min(MAX_LOADERS, len(os.sched_getaffinity(0)) // 4))
    spec = WorkloadSpec(
        prompt_tokens=LengthRange(sizes.http_prompt_len, sizes.http_prompt_len),
        output_tokens=LengthRange(sizes.http_output_len, sizes.http_output_len),
        vocab_size=plan.model.vocab_size,
    )
    level = Level(num_clients=num_requests, num_requests=num_requests)
    with (
        Loader(num_loaders, timeout_s=plan.time_limit_s) as loader,
        ServerProcess("quire", command, Target(name="quire", base_url="", model="")) as server,
    ):
        target = server.wait_until_answering(loader, deadline_s - time.monotonic())
        rows.add("process start to first answer over HTTP", server.first_answer_s, "s")
        for label in ("warm-up", "measured"):
            summary = summarize([loader.run(target, spec, level, label).records])
            print(f"  {label}: {summary.requests_per_s:.1f} requests/s, {summary.num_failed} failed", flush=True)
        alone = Level(num_clients=1, num_requests=NUM_STREAMS)
        single = summarize([loader.run(target, spec, alone, "alone").records])
    _add_rows(plan, rows, summary, single)


def serve_options(plan: Plan) -> str:
    """The engine as the offline part builds it, with room for every request."""
    sizes = plan.sizes
    max_len = -(-(sizes.http_prompt_len + sizes.http_output_len) // 16) * 16
    tokens = sizes.batched_tokens
    kv_option = "" if plan.kv_dtype == "auto" else f" --kv-dtype {plan.kv_dtype}"
    return (
        f"--device {plan.device} --max-model-len {max_len} --max-num-seqs {sizes.num_http_requests}"
        f" --max-num-batched-tokens {tokens} --max-prefill-tokens-while-decoding {tokens}{kv_option}"
    )


def _add_rows(plan: Plan, rows: RowFile, summary: LevelSummary, single: LevelSummary) -> None:
    sizes = plan.sizes
    lengths = [RequestLengths(sizes.http_prompt_len, sizes.http_output_len)] * sizes.num_http_requests
    floor_s = batch_floor_s(plan.model, plan.machine, lengths, plan.kv_item_bytes)
    shape = f"{sizes.num_http_requests} at once, {sizes.http_prompt_len} in {sizes.http_output_len} out"
    rows.add(shape, summary.requests_per_s, "requests/s", len(lengths) / floor_s, is_more_better=True)
    rows.add("the same", summary.output_tokens_per_s, "tokens/s", sizes.http_output_len * len(lengths) / floor_s,
             is_more_better=True)  # fmt: skip
    for name, latency in (("time to first text", summary.ttft), ("gap between texts", summary.itl)):
        if latency is not None:
            rows.add(f"{name}, p50", latency.p50_ms, "ms", note=f"p99 {latency.p99_ms:,.0f} ms")
    if single.tpot is not None:
        context_len = sizes.http_prompt_len + sizes.http_output_len // 2
        token_s = token_floor_s(plan.model, plan.machine, context_len, plan.kv_item_bytes)
        rows.add("one stream over HTTP, a token", single.tpot.p50_ms, "ms", token_s * 1e3)
    if summary.num_failed or single.num_failed:
        raise RuntimeError(f"{summary.num_failed + single.num_failed} requests failed: {summary.errors[:1]}")
