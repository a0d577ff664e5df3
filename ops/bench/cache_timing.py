"""Does the time to the first token tell one key what another has sent? Measures it, and whether it could tell anything.

    python -m ops.bench.cache_timing

Key a sends a prompt. Then, in an order drawn by lot: key b sends the same prompt for the first time, key b sends a new
prompt of the same length, and key a sends its own once more. The times of the first two must look like one
distribution, and those of the last must not: a repetition that is not quicker shows nothing. Exit code 1 otherwise.
"""

from __future__ import annotations

import asyncio
import random
import shlex
import statistics
import sys
import time
from typing import Any

import click
import msgspec
from rich.console import Console

from ops.bench.server_process import ServerFailed, ServerProcess, build_quire_command
from ops.bench.two_samples import smirnov_p_value, smirnov_statistic
from ops.checks import Check, build_table, list_checks
from service.bench.client import send_stream
from service.bench.connection import ConnectionPool, encode_request, parse_base_url
from service.bench.loader import Loader
from service.bench.records import RequestRecord
from service.bench.report import open_console
from service.bench.workload import LengthRange, PlannedRequest, Target, WorkloadSpec, encode_body, plan_request

NUM_WARM_UP = 10
MIN_P_VALUE = 0.01
"""Below it, two samples are taken to be of two distributions."""
SMALLEST_P_VALUE = 1e-9
KEYS = {"a": "sk-cache-timing-a-0123456789", "b": "sk-cache-timing-b-0123456789"}
"""Of a server that lives as long as this command, on the loopback."""
KINDS = {"cold": "b, a new prompt", "other": "b, a prompt of a", "again": "a, its own prompt again"}


class TimingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    model: str
    dtype: str
    prompts: int
    prompt_tokens: int
    vocab_size: int
    seed: int
    serve_options: str
    timeout: float


@click.command()
@click.option("--model", default="quire-pico", show_default=True, help="Model of the server that is started.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--prompts", type=click.IntRange(min=5), default=200, show_default=True, help="Samples of each kind.")
@click.option("--prompt-tokens", type=click.IntRange(min=64), default=512, show_default=True)
@click.option("--vocab-size", type=click.IntRange(min=400), default=4000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--serve-options", default="", help="More options of `quire serve`, as one text.")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds: of the start, of a request.")
def main(**options: Any) -> None:
    """Compare the first-token times of new prompts, of another key's prompts and of repetitions."""
    timing = msgspec.convert(options, TimingOptions)
    command = build_quire_command(timing.model, timing.dtype, timing.serve_options)
    keys = ",".join(f"{label}={key}" for label, key in KEYS.items())
    template = Target(name="quire", base_url="", model=timing.model, api_key=KEYS["a"])
    try:
        with (
            Loader(1, timing.timeout) as loader,
            ServerProcess("quire", f"env LLM_API_KEYS={shlex.quote(keys)} {command}", template) as server,
        ):
            target = server.wait_until_answering(loader, timing.timeout)
            times_s = asyncio.run(measure_times(timing, target))
    except ServerFailed as failure:
        raise click.ClickException(str(failure)) from None
    checks = judge_times(times_s)
    print_times(open_console(), times_s, checks)
    if not all(check.is_ok for check in checks):
        sys.exit(1)


async def measure_times(timing: TimingOptions, target: Target) -> dict[str, list[float]]:
    """Seconds to the first token, by kind. Raises ServerFailed when a request fails."""
    length = LengthRange(timing.prompt_tokens, timing.prompt_tokens)
    spec = WorkloadSpec(
        seed=timing.seed, prompt_tokens=length, output_tokens=LengthRange(1, 1), vocab_size=timing.vocab_size
    )
    rng = random.Random(timing.seed)
    pool = ConnectionPool(parse_base_url(target.base_url))
    times_s: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(-NUM_WARM_UP, timing.prompts):
        shared = plan_request(spec, "shared", index, target.prompt_kind)
        new = plan_request(spec, "new", index, target.prompt_kind)
        await time_one(pool, target, shared, "a", timing.timeout)
        asked = {"cold": (new, "b"), "other": (shared, "b"), "again": (shared, "a")}
        for kind in rng.sample(sorted(asked), len(asked)):
            ttft_s = await time_one(pool, target, *asked[kind], timing.timeout)
            if index >= 0:
                times_s[kind].append(ttft_s)
    pool.close()
    return times_s


async def time_one(
    pool: ConnectionPool, target: Target, planned: PlannedRequest, label: str, timeout_s: float
) -> float:
    """Send one request alone."""
    path = "/completions"
    request = encode_request(pool.address, "POST", path, encode_body(target, planned), KEYS[label])
    record = RequestRecord(index=planned.index, prompt_len=planned.prompt_len, output_len=1, started_s=time.monotonic())
    await send_stream(pool, request, record, timeout_s)
    if record.error is not None or record.ttft_s is None:
        raise ServerFailed(f"a request failed: {record.error or 'it brought no text'}")
    return record.ttft_s


def judge_times(times_s: dict[str, list[float]]) -> list[Check]:
    """The rule, and that this measurement could have found it broken."""
    of_other = smirnov_p_value(times_s["cold"], times_s["other"])
    of_repetition = smirnov_p_value(times_s["cold"], times_s["again"])
    return [
        Check(
            name="another key's prompt takes the time of a new one",
            wanted=f"p > {MIN_P_VALUE:g}",
            found=format_p_value(of_other),
            is_ok=of_other > MIN_P_VALUE,
        ),
        Check(
            name="its own prompt again does not (control)",
            wanted=f"p <= {MIN_P_VALUE:g}",
            found=format_p_value(of_repetition),
            is_ok=of_repetition <= MIN_P_VALUE,
        ),
    ]


def format_p_value(p_value: float) -> str:
    """Smaller ones are lost in the rounding of a sum that is nearly 1."""
    return f"p = {p_value:.3g}" if p_value >= SMALLEST_P_VALUE else f"p < {SMALLEST_P_VALUE:g}"


def print_times(console: Console, times_s: dict[str, list[float]], checks: list[Check]) -> None:
    """The quartiles of each kind, and the verdict."""
    table = build_table("first token after", "samples", "p25", "p50", "p75", "D to new")
    for kind, name in KINDS.items():
        quartiles = statistics.quantiles(times_s[kind], n=4)
        distance = smirnov_statistic(times_s["cold"], times_s[kind])
        figures = (f"{1000 * quartile:.2f} ms" for quartile in quartiles)
        table.add_row(name, str(len(times_s[kind])), *figures, f"{distance:.3f}")
    console.print(table)
    console.print(list_checks(checks))


if __name__ == "__main__":
    main(prog_name="python -m ops.bench.cache_timing")
