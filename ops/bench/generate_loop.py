"""The plain baseline: transformers' `generate` for the same requests, one after another, in a process of its own.

python -m ops.bench.generate_loop --model DIR --dtype bfloat16 --requests 6
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click
import msgspec
import torch
from transformers import AutoModelForCausalLM

from service.bench.options import parse_range
from service.bench.workload import WorkloadSpec, plan_request


class ModelConfig(msgspec.Struct, frozen=True):
    """The one field of config.json that the workload needs."""

    vocab_size: int


class LoopResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of the loop; one stream, so that more clients only wait longer."""

    num_requests: int
    num_output_tokens: int
    output_tokens_per_s: float
    mean_ttft_ms: float
    load_s: float


class FirstTokenTimer:
    """A streamer for `generate`: its first `put` is the prompt, its second the first token."""

    def __init__(self) -> None:
        self.num_puts = 0
        self.first_token_s = 0.0

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` once a step."""
        self.num_puts += 1
        if self.num_puts == 2:
            self.first_token_s = time.monotonic()

    def end(self) -> None:
        """Called by `generate` after the last step."""


class GenerateLoop:
    """Owns the model; `run` one request at a time."""

    def __init__(self, directory: str, dtype: str) -> None:
        started_s = time.monotonic()
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
        self.load_s = time.monotonic() - started_s

    def run(self, prompt_ids: list[int], output_len: int) -> tuple[int, float]:
        """Generate exactly `output_len` greedy tokens; returns their number and the time to the first in seconds."""
        timer = FirstTokenTimer()
        started_s = time.monotonic()
        input_ids = torch.tensor([prompt_ids])
        output = self._model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=output_len,
            min_new_tokens=output_len,
            do_sample=False,
            streamer=timer,
        )
        return output.shape[1] - len(prompt_ids), timer.first_token_s - started_s


def read_vocab_size(directory: str) -> int:
    """The size of the vocabulary that prompts are drawn from. Raises OSError or msgspec.ValidationError."""
    return msgspec.json.decode((Path(directory) / "config.json").read_bytes(), type=ModelConfig).vocab_size


def measure(loop: GenerateLoop, spec: WorkloadSpec, num_requests: int) -> LoopResult:
    """Run the first requests of the workload, after one to warm up."""
    planned = [plan_request(spec, "generate-loop", index, "ids") for index in range(num_requests)]
    prompts = [list(map(int, request.prompt)) for request in planned]
    loop.run(prompts[0][:32], 8)
    started_s = time.monotonic()
    outcomes = [loop.run(prompt, request.output_len) for prompt, request in zip(prompts, planned, strict=True)]
    wall_s = time.monotonic() - started_s
    num_tokens = sum(count for count, _ in outcomes)
    return LoopResult(
        num_requests=num_requests,
        num_output_tokens=num_tokens,
        output_tokens_per_s=num_tokens / wall_s,
        mean_ttft_ms=1e3 * statistics.fmean(ttft_s for _, ttft_s in outcomes),
        load_s=loop.load_s,
    )


@click.command()
@click.option("--model", required=True, help="Checkpoint directory.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
@click.option("--requests", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--prompt-tokens", default="32-512", show_default=True)
@click.option("--output-tokens", default="32-128", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(model: str, dtype: str, requests: int, prompt_tokens: str, output_tokens: str, seed: int) -> None:
    """Print the loop's figures as one line of JSON on standard output."""
    spec = WorkloadSpec(
        seed=seed,
        prompt_tokens=parse_range(prompt_tokens),
        output_tokens=parse_range(output_tokens),
        vocab_size=read_vocab_size(model),
    )
    result = measure(GenerateLoop(model, dtype), spec, requests)
    print(f"{result.output_tokens_per_s:.1f} tok/s, mean TTFT {result.mean_ttft_ms:.0f} ms", file=sys.stderr)
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
