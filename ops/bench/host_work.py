"""What one step costs the engine's loop beside the model: `python -m ops.bench.host_work --batch 256`. No model runs.

The real scheduler and the real engine around it; a runner that knows every token at once. Each phase is timed alone,
so that a step of a GPU can be compared with the work that must fit beside it. `--profile` says where it goes.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import click

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.row_book import RowBook
from batching.row_tables import RowShape
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, SchedulerOutput, StepOutput
from contracts.engine import EngineInfo
from contracts.frames import Deltas, encode_frame
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest
from contracts.sampling import SamplingParams
from service.event_loop import keep_collections_short

TARGET_US = 300.0
"""All phases of a step of 256 rows together: what a step of 0.8 ms on a GPU leaves room for twice."""
BLOCK_SIZE = 16
VOCAB_SIZE = 151_936
CONTEXT_TOKENS = (400, 800)
NUM_WARM_UP_STEPS = 20
NUM_PROFILED = 25
"""Lines of a profile."""
PHASES = ("schedule", "pack", "tokens", "commit", "deliver", "frame")


class Outbox:
    """Where the deltas of a step wait for the frame that takes them to a worker."""

    def __init__(self) -> None:
        self.deltas: list[GenerationDelta] = []

    def encode(self) -> bytes:
        """The frame, as the engine's server makes it; empty from here on."""
        deltas, self.deltas = self.deltas, []
        return encode_frame(Deltas(deltas))


class OutboxSink:
    """One request's end of a connection, as cheap as the engine server's."""

    __slots__ = ("_open", "_outbox", "request_id")

    def __init__(self, request_id: str, outbox: Outbox) -> None:
        self.request_id = request_id
        self._open = {0}
        self._outbox = outbox

    @property
    def is_closed(self) -> bool:
        return not self._open

    @property
    def is_stalled(self) -> bool:
        return False

    def put(self, delta: GenerationDelta) -> None:
        if delta.finish_reason is not None:
            self._open.discard(delta.sample_index)
        self._outbox.deltas.append(delta)

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Nothing is ended before its time here."""


class KnownTokens:
    """A runner whose tokens are there at once: what it does stands for reading them back from a device."""

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        token_id = 1_000 + plan.step_id % 1_000
        sampled = [SampledToken(token_id=token_id) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=0.001)


class Bench:
    """One engine that never steps by itself, with a full batch that decodes; `step` does what its loop does.

    Life cycle: made in a running event loop -> fill -> step as often as wanted.
    """

    def __init__(self, num_seqs: int, num_steps: int) -> None:
        self.scheduler = Scheduler(make_config(num_seqs, num_steps))
        self._runner = KnownTokens()
        core = EngineCore(info=make_info(self.scheduler.config), scheduler=self.scheduler, runner=self._runner)
        self.engine = AsyncEngine(core, ThreadPoolExecutor(max_workers=1))
        self.engine.hold(self)
        self._outbox = Outbox()
        self._pack = make_packer(self.scheduler.config)
        self.taken_s: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self._num_seqs, self._num_steps = num_seqs, num_steps

    def fill(self) -> None:
        """Admit all, compute their prompts in one step; their lengths differ, so blocks fill up at any time."""
        chosen = random.Random(0)
        max_tokens = self._num_steps + 2 * NUM_WARM_UP_STEPS
        for index in range(self._num_seqs):
            prompt = [chosen.randrange(VOCAB_SIZE) for _ in range(chosen.randint(*CONTEXT_TOKENS))]
            sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
            request = GenerationRequest(request_id=f"cmpl-{index:024x}", prompt_token_ids=prompt, sampling=sampling)
            self.engine.admit(request, OutboxSink(request.request_id, self._outbox))
        for _ in range(NUM_WARM_UP_STEPS):
            self.step()
        self.taken_s = {phase: [] for phase in PHASES}

    def step(self) -> SchedulerOutput:
        """One step of the engine's loop, phase by phase."""
        scheduler, clock = self.scheduler, time.perf_counter
        marks = [clock()]
        scheduler.expire(marks[0])
        plan = scheduler.schedule(marks[0])
        if plan is None:
            raise RuntimeError("nothing could be scheduled")
        marks.append(clock())
        self._pack(plan)
        marks.append(clock())
        output = self._runner.execute(plan)
        marks.append(clock())
        deltas = scheduler.commit(output, marks[-1])
        marks.append(clock())
        self.engine._deliver(deltas)
        marks.append(clock())
        self._outbox.encode()
        marks.append(clock())
        for phase, began_s, ended_s in zip(PHASES, marks, marks[1:], strict=False):
            self.taken_s[phase].append(ended_s - began_s)
        return plan


def make_config(num_seqs: int, num_steps: int) -> SchedulerConfig:
    """Room for every sequence until the last step."""
    max_len = CONTEXT_TOKENS[1] + num_steps + 2 * NUM_WARM_UP_STEPS
    return SchedulerConfig(
        num_blocks=num_seqs * (max_len // BLOCK_SIZE + 1),
        block_size=BLOCK_SIZE,
        max_model_len=max_len,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=frozenset({VOCAB_SIZE - 1}),
        max_num_seqs=num_seqs,
        max_num_batched_tokens=num_seqs * CONTEXT_TOKENS[1],  # all prompts in one step; decodes take one token each
        max_queued_requests=num_seqs,
    )


def make_info(config: SchedulerConfig) -> EngineInfo:
    """An engine that nobody asks what it is."""
    return EngineInfo(
        model_name="none",
        model_path="",
        architecture="none",
        device="cpu",
        dtype="none",
        vocab_size=config.vocab_size,
        max_model_len=config.max_model_len,
        eos_token_ids=sorted(config.eos_token_ids),
        block_size=config.block_size,
        num_blocks=config.num_blocks,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        num_parameters=0,
        fingerprint="fp_none",
    )


def make_packer(config: SchedulerConfig) -> Callable[[SchedulerOutput], object]:
    """What packs the differences of a plan for a device."""
    shape = RowShape(
        num_rows=2 * config.max_num_seqs,
        max_len=config.max_model_len,
        max_blocks=config.max_model_len // BLOCK_SIZE + 1,
        max_edits=8,
    )
    book = RowBook(shape, BLOCK_SIZE, config.eos_token_ids)

    def pack(plan: SchedulerOutput) -> object:
        row_plan = book.begin(plan)
        book.keep()
        return row_plan.writes.words(), row_plan.writes.values()

    return pack


async def measure(num_seqs: int, num_steps: int, profile: cProfile.Profile | None = None) -> dict[str, list[float]]:
    """Seconds of every phase of every step."""
    bench = Bench(num_seqs, num_steps)
    bench.fill()
    gc.collect()
    keep_collections_short()
    if profile is not None:
        profile.enable()
    for _ in range(num_steps):
        bench.step()
    if profile is not None:
        profile.disable()
    return bench.taken_s


def render(taken_s: dict[str, list[float]], num_seqs: int) -> str:
    """Microseconds of a step by phase, beside the target."""
    lines = [f"Host work of one step, {num_seqs} sequences that decode, microseconds", ""]
    lines += ["| phase | median | p90 | a row |", "|---|---|---|---|"]
    totals = [sum(step) for step in zip(*taken_s.values(), strict=True)]
    for phase, seconds in [*taken_s.items(), ("sum", totals)]:
        lines.append(f"| {phase} | {_row_of(seconds, num_seqs)} |")
    return "\n".join([*lines, f"| target at 256 | {TARGET_US:,.0f} | | {TARGET_US / 256:.2f} |"])


def _row_of(seconds: list[float], num_seqs: int) -> str:
    micros = sorted(second * 1e6 for second in seconds)
    median = statistics.median(micros)
    return f"{median:,.0f} | {micros[len(micros) * 9 // 10]:,.0f} | {median / num_seqs:.2f}"


@click.command()
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, help="Sequences that decode.")
@click.option("--steps", type=click.IntRange(min=10), default=300, show_default=True)
@click.option("--profile", is_flag=True, help="Also say which functions take the time.")
def main(batch: int, steps: int, profile: bool) -> None:
    """Time what the engine's loop does in a step, without a model."""
    click.echo(render(asyncio.run(measure(batch, steps)), batch))
    if profile:
        profiled = cProfile.Profile()
        asyncio.run(measure(batch, steps, profiled))
        pstats.Stats(profiled).sort_stats("tottime").print_stats(NUM_PROFILED)


if __name__ == "__main__":
    main()
