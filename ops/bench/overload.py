"""Finds what a server can do, asks five times as much of it, and says what became of both.

    python -m ops.bench.overload --minutes 3

A server under overload should work at full speed for those it takes, refuse the rest at once and say when to come
back, answer its health checks all the while, and be its old self soon afterwards. Exit code 1 where it does not.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from ops.bench.cpu_shares import CpuShares, format_cpu_shares
from ops.bench.overload_probe import OverloadProbe
from ops.bench.overload_verdict import (
    OverloadFigures,
    OverloadRecords,
    Window,
    judge_overload,
    summarize_overload,
)
from ops.bench.server_process import ServerFailed, ServerProcess, build_quire_command
from ops.checks import Check, build_table, list_checks
from service.bench.command import find_model, hide_key
from service.bench.loader import START_LEAD_S, Loader
from service.bench.metrics import summarize_latency
from service.bench.options import parse_counts, parse_range
from service.bench.records import RequestRecord
from service.bench.report import format_latency, open_console
from service.bench.runner import Level
from service.bench.workload import Target, WorkloadSpec

NUM_UNLOADED = 8
RAMP_FRACTION = 0.2
"""Of a level, at its start, that is not counted: the batch fills."""
MAX_GOODPUT_FRACTION = 1.2
"""Of the capacity, above which the capacity was not measured rightly."""
RECOVERED_TTFT_FACTOR, MIN_RECOVERED_TTFT_S = 5.0, 0.5
"""Recovered is a time to first text of this many times the unloaded one, but no less than that."""


class OverloadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    minutes: float
    factor: float
    clients: str
    capacity_s: float
    base_url: str | None
    api_key: str | None
    model: str
    dtype: str
    max_queued_requests: int
    serve_options: str
    prompt_tokens: str
    output_tokens: str
    vocab_size: int
    seed: int
    processes: int
    timeout: float
    start_timeout: float
    json: Path | None


class OverloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file."""

    date: str
    platform: str
    num_cpus: int | None
    command: list[str]
    model: str
    figures: OverloadFigures
    cpu_s: dict[str, float]
    """By role, while the overload lasted."""
    checks: list[Check]


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=3, show_default=True, help="Overload.")
@click.option("--factor", type=click.FloatRange(min=1), default=5, show_default=True, help="Times the capacity.")
@click.option("--clients", default="32,128", show_default=True, help="Closed loops; the best one is the capacity.")
@click.option("--capacity-s", type=click.FloatRange(min=1), default=20, show_default=True, help="Seconds of each.")
@click.option("--base-url", help="A server that runs already; default: one is started.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key.")
@click.option("--model", default="quire-pico", show_default=True, help="Model of the server that is started.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option(
    "--max-queued-requests",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Of the server that is started; nobody can recover faster than the queue empties.",
)
@click.option("--serve-options", default="", help="More options of `quire serve`, as one text.")
@click.option("--prompt-tokens", default="16-64", show_default=True)
@click.option("--output-tokens", default="16-64", show_default=True)
@click.option("--vocab-size", type=click.IntRange(min=400), default=4000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--processes", type=click.IntRange(min=2), default=2, show_default=True, help="Of the loader.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds per request.")
@click.option("--start-timeout", type=float, default=300.0, show_default=True, help="Seconds for the server to answer.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Also write everything to this file.")
def main(**options: Any) -> None:
    """Measure how a server behaves when it is asked for several times of what it can do."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    overload = msgspec.convert(options, OverloadOptions)
    console = open_console()
    allow_many_connections()
    try:
        with Loader(overload.processes, overload.timeout) as loader, open_target(overload, loader) as opened:
            records = measure_overload(overload, loader, *opened, console)
    except ServerFailed as failure:
        raise click.ClickException(str(failure)) from None
    figures = summarize_overload(records)
    checks = list(judge_overload(figures))
    print_overload(console, figures, checks)
    if overload.json is not None:
        report = build_report(overload, figures, records.cpu_s, checks)
        overload.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    if not all(check.is_ok for check in checks):
        raise click.exceptions.Exit(1)


def allow_many_connections() -> None:
    """Take as many open files as this user may have; the server that is started inherits it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def open_target(overload: OverloadOptions, loader: Loader) -> Iterator[tuple[Target, int | None]]:
    """The server that runs, or one of our own with its process id."""
    if overload.base_url is not None:
        model = find_model(overload.base_url, overload.api_key)
        yield Target(name="server", base_url=overload.base_url, model=model, api_key=overload.api_key), None
        return
    options = f"--max-queued-requests {overload.max_queued_requests} {overload.serve_options}"
    command = build_quire_command(overload.model, overload.dtype, options)
    with ServerProcess("quire", command, Target(name="quire", base_url="", model="")) as server:
        yield server.wait_until_answering(loader, overload.start_timeout), server.pid


def measure_overload(
    overload: OverloadOptions, loader: Loader, target: Target, server_pid: int | None, console: Console
) -> OverloadRecords:
    """Alone, at capacity, over it, and back."""
    spec = WorkloadSpec(
        seed=overload.seed,
        prompt_tokens=parse_range(overload.prompt_tokens),
        output_tokens=parse_range(overload.output_tokens),
        vocab_size=overload.vocab_size,
    )
    loader.run(target, spec, Level(num_clients=NUM_UNLOADED, num_requests=NUM_UNLOADED), "warm-up")
    unloaded = loader.run(target, spec, Level(num_requests=NUM_UNLOADED), "unloaded").records
    capacity_per_s = find_capacity(overload, loader, target, server_pid, spec, console)
    rate_per_s = overload.factor * capacity_per_s
    duration_s = 60 * overload.minutes
    console.print(f"overload: {rate_per_s:,.1f} requests/s for {duration_s:.0f} s", style="dim")
    probe = OverloadProbe(target, spec, choose_max_ttft_s(unloaded))
    start_s = time.monotonic() + START_LEAD_S
    probe.start(start_s + duration_s)
    cpu = CpuShares(server_pid)
    records = loader.run(target, spec, Level(rate_per_s=rate_per_s, duration_s=duration_s), "overload").records
    cpu_s = cpu.read()
    console.print(format_cpu_shares(cpu_s, duration_s), style="dim")
    probe.join()
    return OverloadRecords(
        capacity_per_s=capacity_per_s,
        offered_per_s=rate_per_s,
        window=count_from(start_s, duration_s),
        unloaded=unloaded,
        overload=records,
        probes=probe.probes,
        recovery_s=probe.recovery_s,
        cpu_s=cpu_s,
    )


def find_capacity(
    overload: OverloadOptions,
    loader: Loader,
    target: Target,
    server_pid: int | None,
    spec: WorkloadSpec,
    console: Console,
) -> float:
    """Requests a second of the best closed loop. Raises ServerFailed when none succeeds."""
    best_per_s = 0.0
    for num_clients in parse_counts(overload.clients):
        warm_up = Level(num_clients=num_clients, num_requests=num_clients)
        loader.run(target, spec, warm_up, f"warm-up/{num_clients}")
        start_s = time.monotonic() + START_LEAD_S
        cpu = CpuShares(server_pid)
        level = Level(num_clients=num_clients, duration_s=overload.capacity_s)
        records = loader.run(target, spec, level, f"capacity/{num_clients}").records
        rate_per_s = count_from(start_s, overload.capacity_s).count_rate(records)
        console.print(f"capacity: {rate_per_s:,.1f} requests/s with {num_clients} clients", style="dim")
        console.print(format_cpu_shares(cpu.read(), overload.capacity_s), style="dim")
        best_per_s = max(best_per_s, rate_per_s)
    if best_per_s == 0.0:
        raise ServerFailed(f"{target.base_url} finished no request in {overload.capacity_s:g} s; give --capacity-s")
    return best_per_s


def count_from(start_s: float, duration_s: float) -> Window:
    """The part of a level that is counted."""
    return Window(start_s=start_s + RAMP_FRACTION * duration_s, end_s=start_s + duration_s)


def choose_max_ttft_s(unloaded: list[RequestRecord]) -> float:
    """The time to first text at which the server counts as recovered."""
    latency = summarize_latency(record.ttft_s for record in unloaded if record.ttft_s is not None)
    unloaded_s = 0.0 if latency is None else latency.p50_ms / 1e3
    return max(MIN_RECOVERED_TTFT_S, RECOVERED_TTFT_FACTOR * unloaded_s)


def print_overload(console: Console, figures: OverloadFigures, checks: list[Check]) -> None:
    """The figures, then what is wanted of them."""
    table = build_table("requests/s", "capacity", "offered", "goodput")
    rates = (figures.capacity_per_s, figures.offered_per_s, figures.goodput_per_s)
    table.add_row("", *(f"{rate:,.1f}" for rate in rates))
    console.print(table)
    ends = build_table("requests", "offered", "succeeded", *map(str, figures.num_refused), "failed")
    counts = (figures.num_offered, figures.num_succeeded, *figures.num_refused.values(), figures.num_failed)
    ends.add_row("", *(f"{count:,}" for count in counts))
    console.print(ends)
    latencies = build_table("ms, p50 / p99", "TTFT unloaded", "TTFT of those taken", "refusal", "/health")
    taken = (figures.unloaded_ttft, figures.ttft, figures.refusal, figures.health)
    latencies.add_row("", *(format_latency(latency) for latency in taken))
    console.print(latencies)
    console.print(list_checks(checks))
    if figures.goodput_per_s > MAX_GOODPUT_FRACTION * figures.capacity_per_s:
        console.print("The closed loops were not at capacity: give --capacity-s more time, or --clients more clients.")


def build_report(
    overload: OverloadOptions, figures: OverloadFigures, cpu_s: dict[str, float], checks: list[Check]
) -> OverloadReport:
    """Everything of one run."""
    return OverloadReport(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        platform=platform.platform(),
        num_cpus=os.cpu_count(),
        command=hide_key(sys.argv),
        model=overload.base_url or overload.model,
        figures=figures,
        cpu_s=cpu_s,
        checks=checks,
    )


if __name__ == "__main__":
    main(prog_name="python -m ops.bench.overload")
