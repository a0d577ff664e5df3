"""`python -m ops.soak`: starts a server or takes one that runs, soaks it, prints what it did not give back.

Exit code 0 when everything came back, 1 when something leaked or an answer was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
from rich.console import Console

from ops.bench.server_process import ServerFailed, ServerProcess, build_quire_command
from ops.checks import Check
from ops.soak.processes import sample_tree
from ops.soak.report import build_report, print_report
from ops.soak.run import SoakPlan, SoakResult, SoakTarget, run_soak
from service.bench.command import find_model, hide_key
from service.bench.loader import Loader
from service.bench.report import open_console
from service.bench.workload import Target

MIN_WARM_UP_S, MAX_WARM_UP_S = 15.0, 60.0
WARM_UP_FRACTION = 0.2
STOP_TIMEOUT_S = 60.0


class SoakOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    minutes: float
    base_url: str | None
    pid: int | None
    api_key: str | None
    model: str
    kv_cache_memory: str
    serve_options: str
    clients: int
    interval: float
    vocab_size: int
    seed: int
    start_timeout: float
    json: Path | None


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=60, show_default=True)
@click.option("--base-url", help="A server that runs already, such as http://127.0.0.1:8000/v1; needs --pid.")
@click.option("--pid", type=click.IntRange(min=1), help="Its first process; all its descendants are watched.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key for --base-url; /stats needs its scope.")
@click.option("--model", default="quire-pico", show_default=True, help="Model of the server that is started.")
@click.option("--kv-cache-memory", default="6MiB", show_default=True, help="Small, so that requests are preempted.")
@click.option("--serve-options", default="", help="More options of `quire serve`, as one text.")
@click.option("--clients", type=click.IntRange(min=1), default=24, show_default=True, help="Requests in flight.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds per sample.")
@click.option("--vocab-size", type=click.IntRange(min=400), default=4000, show_default=True, help="Prompts draw on it.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--start-timeout", type=float, default=300.0, show_default=True, help="Seconds for the server to answer.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Also write everything to this file.")
def main(**options: Any) -> None:
    """Load a server with mixed traffic, then compare what it holds with what it held before."""
    soak = msgspec.convert(options, SoakOptions)
    if (soak.base_url is None) != (soak.pid is None):
        raise click.UsageError("--base-url and --pid go together: the one is loaded, the other is watched")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = open_console()
    plan = plan_soak(soak)
    stop_checks: list[Check] = []
    try:
        with open_target(soak, stop_checks) as target:
            result = asyncio.run(run_soak(target, plan, lambda text: console.print(text, style="dim")))
    except (ServerFailed, httpx.HTTPError) as failure:
        raise click.ClickException(str(failure) or type(failure).__name__) from failure
    finish(soak, plan, msgspec.structs.replace(result, checks=[*result.checks, *stop_checks]), console)


def plan_soak(soak: SoakOptions) -> SoakPlan:
    """The plan; the warm-up comes on top of the minutes."""
    duration_s = 60 * soak.minutes
    return SoakPlan(
        duration_s=duration_s,
        warm_up_s=min(MAX_WARM_UP_S, max(MIN_WARM_UP_S, WARM_UP_FRACTION * duration_s)),
        num_clients=soak.clients,
        interval_s=soak.interval,
        seed=soak.seed,
        vocab_size=soak.vocab_size,
    )


@contextlib.contextmanager
def open_target(soak: SoakOptions, stop_checks: list[Check]) -> Iterator[SoakTarget]:
    """The server that runs, or one of our own, which is stopped afterwards; how it went is added to `stop_checks`."""
    if soak.base_url is not None and soak.pid is not None:
        model = find_model(soak.base_url, soak.api_key)
        yield SoakTarget(base_url=soak.base_url, pid=soak.pid, model=model, api_key=soak.api_key)
        return
    options = f"--kv-cache-memory {soak.kv_cache_memory} {soak.serve_options}"
    command = build_quire_command(soak.model, "auto", options)
    with ServerProcess("quire", command, Target(name="quire", base_url="", model="")) as server, Loader() as loader:
        served = server.wait_until_answering(loader, soak.start_timeout)
        yield SoakTarget(base_url=served.base_url, pid=server.pid, model=served.model)
        stop_checks.extend(stop_server(server))


def stop_server(server: ServerProcess) -> Iterator[Check]:
    """Send SIGTERM to the first process alone: it must leave with 0 and take all its descendants with it."""
    pids = [process.pid for process in sample_tree(server.pid, 0.0).processes]
    started_s = time.monotonic()
    exit_code = server.stop(STOP_TIMEOUT_S)
    took_s = time.monotonic() - started_s
    found = "no exit" if exit_code is None else f"{exit_code} after {took_s:.1f} s"
    yield Check(name="exit code after SIGTERM", wanted="0", found=found, is_ok=exit_code == 0)
    left = [pid for pid in pids if sample_tree(pid, 0.0).processes]
    yield Check(name="processes left after the exit", wanted="0", found=str(len(left)), is_ok=not left)


def finish(soak: SoakOptions, plan: SoakPlan, result: SoakResult, console: Console) -> None:
    """Print, write, and leave with the exit code."""
    report = build_report(result, plan, soak.base_url or soak.model, hide_key(sys.argv))
    print_report(console, report)
    if soak.json is not None:
        soak.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    if not report.is_clean:
        raise click.exceptions.Exit(1)
