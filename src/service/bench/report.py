"""Shows results: a table for people, JSON for programs. Knows nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from service.bench.metrics import LatencySummary, LevelSummary
from service.bench.session import LevelResult, Session

HEADINGS = ("load", "server", "requests", "tok/s", "req/s", "TTFT ms", "ITL ms", "TPOT ms", "e2e ms", "/health ms")
CAPTION = "tok/s: output tokens from first send to last byte. Latencies: p50 / p99."
MIN_WIDTH = 140
BUSY_FRACTION = 0.5
"""Of one core, above which a loader says that it may be what limits the figures."""


class TargetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A server without its key."""

    name: str
    base_url: str
    model: str
    endpoint: str
    prompt_kind: str
    is_eos_ignored: bool


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file."""

    date: str
    platform: str
    num_cpus: int | None
    command: list[str]
    targets: list[TargetInfo]
    workload: Any
    num_rounds: int
    results: list[LevelResult]


def describe_targets(session: Session) -> list[TargetInfo]:
    """The servers as the report names them."""
    return [msgspec.convert(target, TargetInfo, from_attributes=True) for target in session.targets]


def build_table(results: Sequence[LevelResult]) -> Table:
    """One row per level and server; latencies are p50 / p99."""
    has_goodput = any(result.summary.goodput_requests_per_s is not None for result in results)
    has_ratio = any(result.speed_of_first_over_this is not None for result in results)
    headings = [*HEADINGS, *(["good/s"] if has_goodput else []), "failed"]
    headings += ["A over this"] if has_ratio else []
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "server" else "right", no_wrap=True)
    for result in results:
        table.add_row(*format_cells(result, has_goodput=has_goodput, has_ratio=has_ratio))
    return table


def format_cells(result: LevelResult, *, has_goodput: bool, has_ratio: bool) -> list[str]:
    """The cells of one row."""
    summary = result.summary
    cells = [
        result.level,
        result.target,
        str(summary.num_requests),
        f"{summary.output_tokens_per_s:,.1f}",
        f"{summary.requests_per_s:,.2f}",
        *(format_latency(latency) for latency in (summary.ttft, summary.itl, summary.tpot, summary.e2e, result.health)),
    ]
    if has_goodput:
        cells.append("-" if summary.goodput_requests_per_s is None else f"{summary.goodput_requests_per_s:,.2f}")
    cells.append(str(summary.num_failed))
    if has_ratio:
        ratio = result.speed_of_first_over_this
        cells.append("" if ratio is None else f"{ratio.median:.2f}x ({ratio.min:.2f}-{ratio.max:.2f})")
    return cells


def format_latency(latency: LatencySummary | None) -> str:
    """`p50 / p99` in milliseconds."""
    if latency is None:
        return "-"
    return " / ".join(f"{value:.2f}" if value < 10 else f"{value:,.0f}" for value in (latency.p50_ms, latency.p99_ms))


def list_notes(result: LevelResult) -> list[str]:
    """What a reader must know to trust a row: failures, short answers, tokens that were not counted by the server."""
    summary: LevelSummary = result.summary
    where = f"load {result.level}, {result.target}"
    notes = [f"{where}: {error.num_requests} failed: {error.message}" for error in summary.errors]
    if summary.num_short:
        notes.append(f"{where}: {summary.num_short} answers are shorter than asked for: compare with care")
    if summary.num_without_usage:
        notes.append(f"{where}: {summary.num_without_usage} answers have no usage: their tokens are text events")
    if result.loader_cpu_s > BUSY_FRACTION * summary.wall_s:
        notes.append(f"{where}: the loader took {result.loader_cpu_s:.1f} s of processor in {summary.wall_s:.1f} s")
    return notes


def print_results(console: Console, results: Sequence[LevelResult]) -> None:
    """Print the table and its notes."""
    console.print(build_table(results))
    for result in results:
        for note in list_notes(result):
            console.print(note, markup=False, highlight=False, soft_wrap=True)


def open_console() -> Console:
    """A console wide enough for the table where the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(MIN_WIDTH, console.width))
