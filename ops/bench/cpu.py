"""One command, one run: starts `quire serve` and its peers, loads them in turns, runs the generate loop, prints all.

    python -m ops.bench.cpu --model DIR --dtype bfloat16 --clients 1,8,32,64

Peers run in the same minutes on the same machine, so their ratios hold where absolute figures do not.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from ops.bench.generate_loop import LoopResult, read_vocab_size
from ops.bench.markdown import CpuRun, ServerFacts, render_markdown
from ops.bench.server_process import ServerFailed, ServerProcess, build_quire_command
from service.bench.command import find_model
from service.bench.loader import Loader
from service.bench.options import parse_counts, parse_range
from service.bench.report import open_console, print_results
from service.bench.runner import Level
from service.bench.session import LevelResult, Session, run_session
from service.bench.workload import PromptKind, Target, WorkloadSpec


class CpuOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    model: str
    dtype: str
    clients: str
    requests: int | None
    rounds: int | None
    prompt_tokens: str
    output_tokens: str
    seed: int
    serve_options: str
    peer: list[str]
    peer_command: list[str]
    peer_model: str | None
    peer_prompt_kind: PromptKind
    peer_ignore_eos: bool
    loop_requests: int
    start_timeout: float
    json: Path | None


@click.command()
@click.option("--model", required=True, help="Checkpoint directory.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
@click.option("--clients", default="1,8,32,64", show_default=True)
@click.option("--requests", type=click.IntRange(min=1), help="Per level and round; default: max(2 x clients, 16).")
@click.option("--rounds", type=click.IntRange(min=1), help="Default: 1, or 3 with peers.")
@click.option("--prompt-tokens", default="32-512", show_default=True)
@click.option("--output-tokens", default="32-128", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--serve-options", default="", help="More options of `quire serve`, as one text.")
@click.option("--peer", multiple=True, metavar="NAME=URL", help="A server that runs already.")
@click.option("--peer-command", multiple=True, metavar="NAME=COMMAND", help="Start this; {port} is replaced.")
@click.option("--peer-model", help="Model name on the peers; default: the first listed.")
@click.option("--peer-prompt-kind", type=click.Choice(["ids", "text"]), default="ids", show_default=True)
@click.option("--peer-ignore-eos/--peer-no-ignore-eos", default=True)
@click.option("--loop-requests", type=click.IntRange(min=0), default=6, show_default=True, help="0: no generate loop.")
@click.option("--start-timeout", type=float, default=300.0, show_default=True, help="Seconds for a server to answer.")
@click.option("--json", type=click.Path(dir_okay=False, path_type=Path), help="Also write everything to this file.")
def main(**options: Any) -> None:
    """Measure `quire serve` on this machine, next to its peers and a plain generate loop."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cpu = msgspec.convert(options, CpuOptions)
    console = open_console()
    try:
        with Loader() as loader:
            servers, results = measure_servers(cpu, loader, console)
    except ServerFailed as failure:
        raise click.ClickException(str(failure)) from None
    print_results(console, results)
    loop = run_generate_loop(cpu) if cpu.loop_requests else None
    run = CpuRun(
        model=cpu.model,
        dtype=cpu.dtype,
        command=describe_command(cpu.model),
        servers=servers,
        results=results,
        loop=loop,
    )
    print(f"\n{render_markdown(run)}")
    if cpu.json is not None:
        cpu.json.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2))
    if any(result.summary.num_failed for result in results):
        raise click.exceptions.Exit(1)


def describe_command(model: str) -> str:
    """The command line as notes keep it: without the directories of this machine."""
    arguments = shlex.join(sys.argv[1:]).replace(model, Path(model).name)
    return f"python -m ops.bench.cpu {arguments.replace(sys.executable, 'python')}"


def build_spec(cpu: CpuOptions) -> WorkloadSpec:
    """The workload, drawn from the model's own vocabulary."""
    return WorkloadSpec(
        seed=cpu.seed,
        prompt_tokens=parse_range(cpu.prompt_tokens),
        output_tokens=parse_range(cpu.output_tokens),
        vocab_size=read_vocab_size(cpu.model),
    )


def split_name(text: str) -> tuple[str, str]:
    """Read NAME=VALUE. Raises click.UsageError."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise click.UsageError(f"{text!r} is not NAME=VALUE; an example is llama.cpp=http://127.0.0.1:8080/v1")
    return name, value


def plan_processes(cpu: CpuOptions) -> list[ServerProcess]:
    """Quire first, then the peers that are started here."""
    quire = Target(name="quire", base_url="", model="")
    command = build_quire_command(cpu.model, cpu.dtype, cpu.serve_options)
    commands = [split_name(text) for text in cpu.peer_command]
    return [
        ServerProcess("quire", command, quire),
        *(ServerProcess(name, line, build_peer(cpu, name, "")) for name, line in commands),
    ]


def build_peer(cpu: CpuOptions, name: str, base_url: str) -> Target:
    """A peer as the options describe it."""
    return Target(
        name=name,
        base_url=base_url,
        model=cpu.peer_model or (find_model(base_url, None) if base_url else ""),
        prompt_kind=cpu.peer_prompt_kind,
        is_eos_ignored=cpu.peer_ignore_eos,
    )


def measure_servers(cpu: CpuOptions, loader: Loader, console: Console) -> tuple[list[ServerFacts], list[LevelResult]]:
    """Start the servers one after another, so that each start is undisturbed, then run the levels in turns."""
    running = [build_peer(cpu, *split_name(text)) for text in cpu.peer]
    processes = plan_processes(cpu)
    with contextlib.ExitStack() as stack:
        targets: list[Target] = []
        for process in processes:
            console.print(f"starting {process.name}", style="dim")
            stack.enter_context(process)
            targets.append(process.wait_until_answering(loader, cpu.start_timeout))
        targets += running
        session = Session(
            targets=targets,
            spec=build_spec(cpu),
            levels=[
                Level(num_clients=num_clients, num_requests=cpu.requests) for num_clients in parse_counts(cpu.clients)
            ],
            num_rounds=cpu.rounds or (3 if len(targets) > 1 else 1),
        )
        results = list(run_session(session, loader, lambda text: console.print(text, style="dim")))
    started = [
        ServerFacts(name=process.name, first_answer_s=process.first_answer_s, peak_rss_bytes=process.peak_rss_bytes)
        for process in processes
    ]
    return started + [ServerFacts(name=target.name) for target in running], results


def run_generate_loop(cpu: CpuOptions) -> LoopResult:
    """Run the baseline in its own process, with nothing else running."""
    command = [sys.executable, "-m", "ops.bench.generate_loop", "--model", cpu.model, "--dtype", cpu.dtype]
    command += ["--requests", str(cpu.loop_requests), "--seed", str(cpu.seed)]
    command += ["--prompt-tokens", cpu.prompt_tokens, "--output-tokens", cpu.output_tokens]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(finished.stdout.splitlines()[-1], type=LoopResult)


if __name__ == "__main__":
    main()
