"""The Markdown block for ops/bench/NOTES.md: date, hardware, command, model and the figures of one run."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from ops.bench.generate_loop import LoopResult
from service.bench.session import LevelResult

LATENCY_LEVEL = "32"
"""The level whose latencies stand in the table, as in the targets; the last one where it was not run."""


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a server besides its levels; None for one that this run did not start."""

    name: str
    first_answer_s: float | None = None
    peak_rss_bytes: int | None = None


class CpuRun(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one `python -m ops.bench.cpu` measured."""

    model: str
    dtype: str
    command: str
    servers: list[ServerFacts]
    """The first is Quire."""
    results: list[LevelResult]
    loop: LoopResult | None = None


def describe_hardware() -> str:
    """Processor, usable cores, memory and versions of the libraries that decide the speed."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else platform.machine()}, {cores} cores, {memory_gib:.0f} GiB, {libraries}"


def render_markdown(run: CpuRun) -> str:
    """The block, ready to paste."""
    levels = list(dict.fromkeys(result.level for result in run.results))
    latency_level = LATENCY_LEVEL if LATENCY_LEVEL in levels else levels[-1]
    headings = ["server", *levels, f"TTFT p50 at {latency_level}", f"ITL p99 at {latency_level}"]
    headings += ["start to first answer", "peak memory", "failed"]
    rows = [_server_row(run, server, levels, latency_level) for server in run.servers]
    rows += [_ratio_row(run, server.name, levels, len(headings)) for server in run.servers[1:]]
    if run.loop is not None:
        rows += _loop_rows(run, run.loop, levels, len(headings))
    lines = [
        f"### {datetime.datetime.now(datetime.UTC).date()}: {Path(run.model).name}, {run.dtype}",
        "",
        f"- Hardware: {describe_hardware()}.",
        f"- Command: `{run.command}`.",
        "- Output tok/s by number of closed-loop clients:",
        "",
        _join(headings),
        _join(["---"] * len(headings)),
        *(_join(row) for row in rows),
        "",
        "What changed:",
    ]
    return "\n".join(lines)


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _pad(cells: list[str], length: int) -> list[str]:
    return cells + [""] * (length - len(cells))


def _find(run: CpuRun, name: str, level: str) -> LevelResult:
    return next(result for result in run.results if result.target == name and result.level == level)


def _server_row(run: CpuRun, server: ServerFacts, levels: list[str], latency_level: str) -> list[str]:
    results = [_find(run, server.name, level) for level in levels]
    summary = _find(run, server.name, latency_level).summary
    return [
        server.name,
        *(f"{result.summary.output_tokens_per_s:,.0f}" for result in results),
        "-" if summary.ttft is None else f"{summary.ttft.p50_ms:,.0f} ms",
        "-" if summary.itl is None else f"{summary.itl.p99_ms:,.0f} ms",
        "-" if server.first_answer_s is None else f"{server.first_answer_s:.1f} s",
        "-" if server.peak_rss_bytes is None else f"{server.peak_rss_bytes / 1e9:.2f} GB",
        str(sum(result.summary.num_failed for result in results)),
    ]


def _ratio_row(run: CpuRun, name: str, levels: list[str], num_columns: int) -> list[str]:
    """Quire over one peer, round by round: median (min-max)."""
    ratios = [_find(run, name, level).speed_of_first_over_this for level in levels]
    cells = ["-" if ratio is None else f"{ratio.median:.2f}x ({ratio.min:.2f}-{ratio.max:.2f})" for ratio in ratios]
    return _pad([f"{run.servers[0].name} / {name}", *cells], num_columns)


def _loop_rows(run: CpuRun, loop: LoopResult, levels: list[str], num_columns: int) -> list[list[str]]:
    """The loop does one request at a time: its speed is the same at every level."""
    speeds = [_find(run, run.servers[0].name, level).summary.output_tokens_per_s for level in levels]
    label = f"generate loop, one at a time (mean TTFT {loop.mean_ttft_ms:,.0f} ms, no waiting)"
    same = [f"{loop.output_tokens_per_s:,.0f}"] * len(levels)
    ratios = [f"{speed / loop.output_tokens_per_s:.1f}x" for speed in speeds]
    return [
        _pad([label, *same], num_columns),
        _pad([f"{run.servers[0].name} / generate loop", *ratios], num_columns),
    ]
