"""Engines over device rows on a CPU, and a driver that runs one step ahead of what it has read.

Knows nothing of what the right tokens are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from batching.device_forward import DeviceForward, select_device_forward
from batching.device_ops import DeviceOps, DeviceStep, TorchOps
from batching.device_runner import DeviceLimits, DeviceRunner
from batching.engine import EngineCore, allocate_cache, build_engine
from batching.isolation import execute_isolated
from batching.model_loader import load_model, no_progress
from batching.step import UNKNOWN_TOKEN, ScheduledSequence, SchedulerOutput, StepOutput
from contracts.sampling import SamplingParams
from tests.batching.real_engine import engine_settings, ignore_log

GREEDY = SamplingParams(temperature=0.0)
MAX_PREEMPTIONS = 12


def start_device_engine(path: Path, ops: DeviceOps | None = None, **overrides: Any) -> EngineCore:
    """A loaded engine whose runner works over device rows."""
    core = build_engine(engine_settings(path, **overrides), no_progress, ops or TorchOps())
    assert isinstance(core.runner, DeviceRunner)
    return core


def make_runner(
    path: Path,
    wrap: Callable[[DeviceForward], DeviceForward] = lambda forward: forward,
    ops: DeviceOps | None = None,
    **overrides: Any,
) -> DeviceRunner:
    """A device runner with its forward pass wrapped; it has run no step."""
    ops = ops or TorchOps()
    settings = engine_settings(path, **({"block_size": 4, "max_num_seqs": 8} | overrides))
    loaded = load_model(settings, no_progress)
    pool = allocate_cache(settings, loaded, has_trash_block=True)
    selected = select_device_forward(loaded, pool, ops, lambda: loaded)
    assert selected is not None
    limits = DeviceLimits(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        eos_token_ids=frozenset(loaded.eos_token_ids),
    )
    return DeviceRunner(wrap(selected.forward), pool, ops, limits)


def plan_of(rows: list[ScheduledSequence]) -> SchedulerOutput:
    """A plan of these rows, none of which counts as a decode."""
    num_tokens = sum(len(row.token_ids) for row in rows)
    return SchedulerOutput(step_id=0, sequences=rows, num_tokens=num_tokens, num_decodes=0)


def prompt_row(seq_id: int, tokens: list[int], sampling: SamplingParams = GREEDY, **changes: Any) -> ScheduledSequence:
    """A row with blocks of its own."""
    values: dict[str, Any] = {
        "seq_id": seq_id,
        "token_ids": tokens,
        "start": 0,
        "block_ids": [4 * seq_id + index for index in range(-(-(changes.get("start", 0) + len(tokens)) // 4))],
        "is_sampling": True,
        "sampling": sampling,
        "seed": seq_id,
        "num_output_tokens": 0,
        "prompt_token_ids": tokens,
        "output_token_ids": [],
    }
    return ScheduledSequence(**(values | changes))


class FailingForward:
    """Raises in the calls whose numbers are given, if they have several rows, after the step's inputs were built."""

    def __init__(self, forward: DeviceForward, failing: set[int]) -> None:
        self._forward = forward
        self._failing = failing
        self.num_calls = 0

    def __call__(self, step: DeviceStep) -> torch.Tensor:
        self.num_calls += 1
        if self.num_calls in self._failing and int(step.inputs.context_lens.count_nonzero()) > 1:
            raise RuntimeError("the device has no room for this step")
        return self._forward(step)


class Job(msgspec.Struct, kw_only=True):
    """One sequence of the driver: what is known, what was planned, and its blocks."""

    seq_id: int
    prompt: list[int]
    max_tokens: int
    sampling: SamplingParams = GREEDY
    arrives_at: int = 0
    stops_after: int | None = None
    """It ends by its own token here, which the driver sees only when it has read it."""
    output: list[int] = []
    num_planned: int = 0
    num_sampled: int = 0
    """Tokens that the steps launched so far sample."""
    blocks: list[int] = []
    is_ended: bool = False
    num_in_flight: int = 0
    num_blocks_kept: int | None = None
    """It was preempted: once nothing of it is in flight it begins again behind so many blocks."""


class LagOneDriver:
    """Launches step n + 1 before it collects step n. Prefill by chunks of `chunk_len`; blocks are used again.

    With `draw` it preempts at random; a launch that raises is made again, or in parts once all others are collected.
    """

    def __init__(
        self,
        runner: DeviceRunner,
        jobs: list[Job],
        *,
        chunk_len: int,
        num_blocks: int,
        draw: random.Random | None = None,
    ) -> None:
        self._runner = runner
        self._jobs = jobs
        self._chunk_len = chunk_len
        self._block_size = 4
        self._free = list(range(num_blocks))
        self._step = 0
        self._draw = draw
        self._in_flight: list[SchedulerOutput] = []
        self.num_ahead = 0
        """Decodes launched while their token was known to the device alone."""
        self.num_preemptions = 0
        self.num_in_parts = 0

    def run(self) -> dict[int, list[int]]:
        """All outputs by seq_id."""
        while True:
            plan = self._plan()
            if plan is not None:
                self._launch(plan)
            if not self._in_flight and plan is None and self._is_done():
                return {job.seq_id: job.output for job in self._jobs}
            if len(self._in_flight) == 2 or (plan is None and self._in_flight):
                self._commit(self._in_flight.pop(0), self._runner.collect())
            self._preempt_one()
            self._step += 1

    def _is_done(self) -> bool:
        return all(job.arrives_at <= self._step and not self._has_more(job) for job in self._jobs)

    def _launch(self, plan: SchedulerOutput) -> None:
        try:
            self._runner.launch(plan)
        except RuntimeError:
            if self._draw is not None and self._draw.random() < 0.5:
                self._execute_in_parts(plan)
                return
            self._launch(plan)
            return
        self._in_flight.append(plan)

    def _execute_in_parts(self, plan: SchedulerOutput) -> None:
        self.num_in_parts += 1
        while self._in_flight:
            self._commit(self._in_flight.pop(0), self._runner.collect())
        self._commit(plan, execute_isolated(self._runner, plan, ignore_log))

    def _preempt_one(self) -> None:
        if self._draw is None or self.num_preemptions == MAX_PREEMPTIONS or self._draw.random() > 0.3:
            return
        running = [job for job in self._jobs if job.blocks and not job.is_ended and job.num_blocks_kept is None]
        if running:
            job = self._draw.choice(running)
            job.num_blocks_kept = self._draw.choice([0, 1, job.num_planned // self._block_size])
            self.num_preemptions += 1
            self._begin_again(job)

    def _begin_again(self, job: Job) -> None:
        """Behind the blocks that are still in the cache, of which copies stand elsewhere as well as not."""
        if job.num_blocks_kept is None or job.num_in_flight:
            return
        num_reusable = min(job.num_planned, len(job.prompt) + len(job.output) - 1) // self._block_size
        num_kept = min(job.num_blocks_kept, num_reusable)
        self._free += job.blocks[num_kept:]
        del job.blocks[num_kept:]
        job.num_planned, job.num_sampled, job.num_blocks_kept = num_kept * self._block_size, len(job.output), None

    def _plan(self) -> SchedulerOutput | None:
        ready = [
            job
            for job in self._jobs
            if job.arrives_at <= self._step and self._has_more(job) and job.num_blocks_kept is None
        ]
        rows = sorted((self._row(job) for job in ready), key=lambda row: len(row.token_ids) > 1 or not row.is_sampling)
        if not rows:
            return None
        return SchedulerOutput(
            step_id=self._step,
            sequences=rows,
            num_tokens=sum(len(row.token_ids) for row in rows),
            num_decodes=sum(len(row.token_ids) == 1 and row.is_sampling for row in rows),
        )

    def _has_more(self, job: Job) -> bool:
        return not job.is_ended and job.num_sampled < job.max_tokens

    def _row(self, job: Job) -> ScheduledSequence:
        known = job.prompt + job.output
        start = job.num_planned
        num_known_next = len(job.prompt) + job.num_sampled
        num_new = min(self._chunk_len, num_known_next - start)
        token_ids = known[start : start + num_new] or [UNKNOWN_TOKEN]
        self.num_ahead += token_ids == [UNKNOWN_TOKEN]
        while len(job.blocks) * self._block_size < start + num_new:
            job.blocks.append(self._free.pop())
        is_sampling = start + num_new == num_known_next
        row = ScheduledSequence(
            seq_id=job.seq_id,
            token_ids=token_ids,
            start=start,
            block_ids=job.blocks.copy(),
            is_sampling=is_sampling,
            sampling=job.sampling,
            seed=job.seq_id,
            num_output_tokens=len(job.output),
            prompt_token_ids=job.prompt.copy() if job.sampling.has_penalties else None,
            output_token_ids=job.output.copy() if job.sampling.has_penalties else None,
        )
        job.num_planned += num_new
        job.num_sampled += is_sampling
        job.num_in_flight += 1
        return row

    def _commit(self, plan: SchedulerOutput, output: StepOutput) -> None:
        jobs = {job.seq_id: job for job in self._jobs}
        for row, sampled in zip(plan.sequences, output.sampled, strict=True):
            job = jobs[row.seq_id]
            job.num_in_flight -= 1
            if job.is_ended:  # the wasted row of a step that was in flight when it ended
                self._release(job)
            elif sampled is not None:
                job.output.append(sampled.token_id)
                job.is_ended = len(job.output) == (job.stops_after or job.max_tokens)
                if job.is_ended and not job.num_in_flight:
                    self._release(job)
            if not job.is_ended:
                self._begin_again(job)

    def _release(self, job: Job) -> None:
        self._free += job.blocks
        job.blocks = []
