"""Measures this machine's accelerator, the kernels and the engine on it, and transformers beside it.

    python -m ops.bench.gpu --model qwen3-0.6b --parts machine,attention,offline --json out.json

Weights are random, configurations are real. Every part runs in a process of its own and cannot spoil the others.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import msgspec

from ops.bench.gpu.model_sizes import MODELS
from ops.bench.gpu.part import PARTS
from ops.bench.gpu.plan import TOY_SIZES, UNKNOWN_MACHINE, Plan, Sizes
from ops.bench.gpu.rows import Row, read_rows, render_table
from service.bench.options import parse_counts

CHOICES = [name for name in PARTS if name not in ("checkpoint", "check")]
NEED_CHECKPOINT = {"offline", "stream", "start", "http", "transformers"}
LIBRARIES = ("torch", "triton", "transformers")
STOP_TIMEOUT_S = 30.0
"""For a part that was asked to end, to end what it has started."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    model: str
    device: str
    parts: str
    check: bool
    tune: bool
    kv_dtype: str
    torch_ops: bool
    time_limit: float
    batched_tokens: int | None
    requests: int | None
    contexts: str | None
    batches: str | None
    checkpoints: Path | None
    json: Path | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run measured."""

    command: str
    hardware: str
    plan: Plan
    rows: list[Row]
    failures: list[str]


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), default="qwen3-0.6b", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--parts", default=",".join(CHOICES), show_default=True, help="What to measure, in this order.")
@click.option("--check", is_flag=True, help="First compare every kernel with its reference on the device.")
@click.option("--tune", is_flag=True, help="Also try launch configurations of the attention kernels.")
@click.option("--kv-dtype", type=click.Choice(["auto", "fp8"]), default="auto", show_default=True)
@click.option("--torch-ops", is_flag=True, help="Run a GPU's runner with plain torch; for offline and stream.")
@click.option("--time-limit", type=float, default=240.0, show_default=True, help="Seconds of each part.")
@click.option("--batched-tokens", type=click.IntRange(min=16), help="Token budget of a step; default 8,192.")
@click.option("--requests", type=click.IntRange(min=1), help="Of the offline workload; default 256.")
@click.option("--contexts", help="Context lengths of the attention table, with commas between them.")
@click.option("--batches", help="Batch sizes of the attention table.")
@click.option("--checkpoints", type=click.Path(file_okay=False, path_type=Path), help="Keep the weights here.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Also write everything to this file.")
def main(**options: Any) -> None:
    """Measure the engine on one accelerator, each figure beside what the machine allows."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    asked = msgspec.convert(options, Options)
    names = list_parts(asked)
    with keep_or_clean(asked.checkpoints) as checkpoints, tempfile.TemporaryDirectory() as scratch:
        plan = make_plan(asked, checkpoints)
        plan, rows, failures = run_parts(names, plan, Path(scratch))
    report = Report(
        command=f"python -m ops.bench.gpu {shlex.join(sys.argv[1:])}",
        hardware=describe_machine(plan),
        plan=plan,
        rows=rows,
        failures=failures,
    )
    print(f"\n{render(report)}", flush=True)
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    if failures:
        raise click.exceptions.Exit(1)


def list_parts(asked: Options) -> list[str]:
    """In the order in which they run: the machine comes first, for the floors, and what is needed before it is used."""
    chosen = [name.strip() for name in asked.parts.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(CHOICES))
    if unknown:
        raise click.UsageError(f"there is no part {unknown[0]!r}; there are {', '.join(CHOICES)}")
    wanted = {"machine", *chosen}
    if asked.check:
        wanted.add("check")
    if wanted & NEED_CHECKPOINT:
        wanted.add("checkpoint")
    return sorted(wanted, key=["machine", *(name for name in PARTS if name != "machine")].index)


def make_plan(asked: Options, checkpoints: Path) -> Plan:
    """The sizes of the model that was chosen, and what the options say otherwise."""
    sizes = TOY_SIZES if asked.model == "toy" else Sizes()
    changes: dict[str, Any] = {}
    if asked.device == "cpu":
        changes |= {"copy_bytes": TOY_SIZES.copy_bytes, "matrix_size": TOY_SIZES.matrix_size}
    if asked.batched_tokens is not None:
        changes["batched_tokens"] = asked.batched_tokens
    if asked.requests is not None:
        changes["workload"] = msgspec.structs.replace(sizes.workload, num_requests=asked.requests)
    if asked.contexts is not None:
        changes["contexts"] = tuple(parse_counts(asked.contexts))
    if asked.batches is not None:
        changes["batches"] = tuple(parse_counts(asked.batches))
    return Plan(
        model_name=asked.model,
        directory=str(checkpoints / asked.model),
        device=asked.device,
        kv_dtype=asked.kv_dtype,
        sizes=msgspec.structs.replace(sizes, **changes),
        is_tuning=asked.tune,
        has_torch_ops=asked.torch_ops,
        time_limit_s=asked.time_limit,
    )


@contextlib.contextmanager
def keep_or_clean(directory: Path | None) -> Iterator[Path]:
    """Where checkpoints are: the directory that was named, or one that goes with this run."""
    if directory is not None:
        yield directory.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def run_parts(names: list[str], plan: Plan, scratch: Path) -> tuple[Plan, list[Row], list[str]]:
    """The plan with what the machine can do, all rows, and a sentence for each part that failed."""
    from ops.bench.gpu.machine_part import machine_of

    row_file = scratch / "rows.jsonl"
    failures = []
    for name in names:
        print(f"{name} ...", flush=True)
        began_s = time.monotonic()
        problem = run_part(name, plan, scratch, row_file)
        print(f"{name}: {problem or 'done'}, {time.monotonic() - began_s:.1f} s", flush=True)
        if problem is not None:
            failures.append(f"{name}: {problem}")
        if name == "machine" and (machine := machine_of(read_rows(row_file))) is not None:
            plan = msgspec.structs.replace(plan, machine=machine)
    rows = read_rows(row_file)
    if plan.machine == UNKNOWN_MACHINE:
        rows = [msgspec.structs.replace(row, floor=None) for row in rows]
    return plan, rows + list(ratios_to_peer(rows)), failures


def run_part(name: str, plan: Plan, scratch: Path, row_file: Path) -> str | None:
    """Run one part to its end or until its time is up; None, or what went wrong."""
    plan_file = scratch / "plan.json"
    plan_file.write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "ops.bench.gpu.part", name, str(plan_file), str(row_file)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(plan.time_limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after its {plan.time_limit_s:g} s"
    finally:
        end_group(process)
    return None if status == 0 else f"failed with exit status {status}"


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then end all that is left of its group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ratios_to_peer(rows: list[Row]) -> Iterator[Row]:
    """The offline workload over transformers' time for it, where both were measured."""
    ours = [row.value for row in rows if row.part == "offline" and row.unit == "tokens/s" and row.value]
    theirs = [row.value for row in rows if row.part == "transformers" and row.value]
    if ours and theirs:
        yield Row(part="transformers", figure="offline over it", value=ours[-1] / theirs[-1], unit="times")


def describe_machine(plan: Plan) -> str:
    """The device by its own name, what stands beside it, and the libraries that decide the speed."""
    libraries = [f"{name} {found}" for name in LIBRARIES if (found := find_version(name)) is not None]
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return ", ".join([plan.machine.name, cores, f"Python {platform.python_version()}", *libraries])


def find_version(library: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def render(report: Report) -> str:
    """The block for the notes."""
    lines = [
        f"### {report.plan.model_name}, bfloat16, cache {report.plan.kv_dtype}",
        "",
        f"- Hardware: {report.hardware}.",
        f"- Command: `{report.command}`.",
        "",
        render_table(report.rows),
        *(f"\nFailed: {failure}." for failure in report.failures),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
