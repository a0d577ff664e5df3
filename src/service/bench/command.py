"""The click command `quire bench`: reads options, runs a session, prints the table, sets the exit code."""

from __future__ import annotations

import asyncio
import datetime
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from service.bench.client import fetch_first_model
from service.bench.connection import ExchangeFailed
from service.bench.loader import Loader
from service.bench.metrics import Slo
from service.bench.options import parse_counts, parse_range, parse_rates, parse_slo, parse_url
from service.bench.report import BenchReport, describe_targets, open_console, print_results
from service.bench.runner import Level
from service.bench.session import LevelResult, Session, run_session
from service.bench.workload import Endpoint, LengthRange, PromptKind, Target, WorkloadSpec


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    base_url: str
    model: str | None
    api_key: str | None
    endpoint: Endpoint
    prompt_kind: PromptKind
    ignore_eos: bool
    clients: list[int]
    rate: list[float] | None
    requests: int | None
    duration: float | None
    warmup: int | None
    prompt_tokens: LengthRange
    output_tokens: LengthRange
    shared_prefix_tokens: int
    vocab_size: int
    seed: int
    slo: Slo | None
    compare: list[str]
    compare_model: str | None
    compare_prompt_kind: PromptKind | None
    compare_ignore_eos: bool
    rounds: int | None
    processes: int
    timeout: float
    json: Path | None


def _read_as(parse: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A click callback that turns a ValueError into a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return callback


POSITIVE = click.IntRange(min=1)


@click.command("bench")
@click.option(
    "--base-url",
    envvar="OPENAI_BASE_URL",
    default="http://127.0.0.1:8000/v1",
    show_default=True,
    callback=_read_as(parse_url),
    help="Server to load.",
)
@click.option("--model", help="Model to ask for; default: the first that the server lists.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key.")
@click.option("--endpoint", type=click.Choice(["completions", "chat"]), default="completions", show_default=True)
@click.option(
    "--prompt-kind",
    type=click.Choice(["ids", "text"]),
    help="Prompts as token ids, or as words; default: ids for completions, always text for chat.",
)
@click.option("--ignore-eos/--no-ignore-eos", default=True, help="Ask for no early stop (a vendor field).")
@click.option(
    "--clients", default="1,8,32,64", show_default=True, callback=_read_as(parse_counts), help="Closed loop: a sweep."
)
@click.option("--rate", callback=_read_as(parse_rates), help="Open loop: Poisson arrivals a second, a sweep.")
@click.option(
    "--requests", type=POSITIVE, help="Requests per level; default: max(2 x clients, 16), or 10 s of arrivals."
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds per level instead of a number.")
@click.option("--warmup", type=click.IntRange(min=0), help="Requests before each level; default: clients, at most 8.")
@click.option(
    "--prompt-tokens", default="32-512", show_default=True, callback=_read_as(parse_range), help="Log-uniform."
)
@click.option("--output-tokens", default="32-128", show_default=True, callback=_read_as(parse_range), help="Uniform.")
@click.option("--shared-prefix-tokens", type=click.IntRange(min=0), default=0, help="Put before every prompt.")
@click.option(
    "--vocab-size", type=click.IntRange(min=400), default=4000, show_default=True, help="Prompts draw from it."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--slo", callback=_read_as(parse_slo), help="Limits in ms for goodput: ttft=500,itl=50,tpot=40,e2e=9000.")
@click.option(
    "--compare",
    multiple=True,
    metavar="URL",
    callback=_read_as(lambda urls: tuple(map(parse_url, urls))),
    help="Other base URL, loaded in alternating rounds.",
)
@click.option("--compare-model", help="Model there; default: the first listed.")
@click.option("--compare-prompt-kind", type=click.Choice(["ids", "text"]), help="Prompts there; default: the same.")
@click.option("--compare-ignore-eos/--compare-no-ignore-eos", default=True, help="The same field there.")
@click.option("--rounds", type=POSITIVE, help="Rounds per level; default: 1, or 3 with --compare.")
@click.option("--processes", type=POSITIVE, default=1, show_default=True, help="Loader processes for high rates.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=300, show_default=True, help="Per request."
)
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Also write everything to this file.")
def bench_command(**options: Any) -> None:
    """Measure an OpenAI-compatible server: throughput, latency, goodput.

    Throughput is output tokens over the wall time from first send to last byte. TTFT is the time to the first text;
    ITL the gap between socket reads that bring text, never divided by the tokens in them; TPOT the mean time per
    token after the first. Prompts differ in every level and round, but the same seed gives the same prompts in the
    next run: change --seed when the server may still have them in its prefix cache.
    """
    bench = read_options(options)
    console = open_console()
    session = plan_session(bench)
    with Loader(bench.processes, bench.timeout) as loader:
        results = list(run_session(session, loader, lambda text: _announce(console, text)))
    print_results(console, results)
    if bench.json is not None:
        bench.json.write_bytes(msgspec.json.format(msgspec.json.encode(build_report(session, results)), indent=2))
    if any(result.summary.num_failed for result in results):
        raise click.exceptions.Exit(1)


def read_options(options: dict[str, Any]) -> BenchOptions:
    """Fill in the defaults that depend on other options. Raises click.UsageError."""
    if options["endpoint"] == "chat" and options["prompt_kind"] == "ids":
        raise click.UsageError("--prompt-kind ids needs --endpoint completions: chat takes text only")
    if options["requests"] is not None and options["duration"] is not None:
        raise click.UsageError("give --requests or --duration, not both")
    default_kind = "text" if options["endpoint"] == "chat" else "ids"
    return msgspec.convert(options | {"prompt_kind": options["prompt_kind"] or default_kind}, BenchOptions)


def plan_session(bench: BenchOptions) -> Session:
    """Find the models and build the session. Raises click.ClickException when a server does not answer."""
    first = Target(
        name="A" if bench.compare else "server",
        base_url=bench.base_url,
        model=bench.model or find_model(bench.base_url, bench.api_key),
        endpoint=bench.endpoint,
        prompt_kind=bench.prompt_kind,
        is_eos_ignored=bench.ignore_eos,
        api_key=bench.api_key,
    )
    others = [
        msgspec.structs.replace(
            first,
            name=chr(ord("B") + position),
            base_url=base_url,
            model=bench.compare_model or find_model(base_url, bench.api_key),
            prompt_kind=bench.compare_prompt_kind or bench.prompt_kind,
            is_eos_ignored=bench.compare_ignore_eos,
        )
        for position, base_url in enumerate(bench.compare)
    ]
    return Session(
        targets=[first, *others],
        spec=WorkloadSpec(
            seed=bench.seed,
            prompt_tokens=bench.prompt_tokens,
            output_tokens=bench.output_tokens,
            shared_prefix_tokens=bench.shared_prefix_tokens,
            vocab_size=bench.vocab_size,
        ),
        levels=plan_levels(bench),
        num_rounds=bench.rounds or (3 if others else 1),
        num_warmup_requests=bench.warmup,
        slo=bench.slo,
    )


def plan_levels(bench: BenchOptions) -> list[Level]:
    """The sweep: over rates where given, else over clients."""
    if bench.rate is not None:
        return [Level(rate_per_s=rate, num_requests=bench.requests, duration_s=bench.duration) for rate in bench.rate]
    return [
        Level(num_clients=clients, num_requests=bench.requests, duration_s=bench.duration) for clients in bench.clients
    ]


def find_model(base_url: str, api_key: str | None) -> str:
    """The first model that the server lists."""
    try:
        return asyncio.run(fetch_first_model(base_url, api_key))
    except (ExchangeFailed, OSError, ValueError) as error:
        raise click.ClickException(f"{base_url} does not answer ({error}); start a server or give --base-url") from None


def build_report(session: Session, results: list[LevelResult]) -> BenchReport:
    """The JSON report, without keys."""
    return BenchReport(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        platform=platform.platform(),
        num_cpus=os.cpu_count(),
        command=hide_key(sys.argv),
        targets=describe_targets(session),
        workload=session.spec,
        num_rounds=session.num_rounds,
        results=results,
    )


def hide_key(arguments: list[str]) -> list[str]:
    """The command line as it may be kept: without the value of --api-key."""
    kept = [re.sub("^--api-key=.*", "--api-key=***", argument) for argument in arguments]
    return [
        "***" if previous == "--api-key" else argument for previous, argument in zip(["", *kept], kept, strict=False)
    ]


def _announce(console: Console, text: str) -> None:
    """Progress on a terminal only."""
    if console.is_terminal:
        console.print(text, style="dim")
