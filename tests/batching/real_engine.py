"""Drives a real engine step by step: settings for tiny checkpoints, requests, and a loop with arrivals.

Knows nothing of what the right tokens are.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from batching.engine import EngineCore, build_engine
from batching.isolation import Runner, execute_isolated
from batching.model_loader import no_progress
from batching.scheduler import Scheduler
from contracts.generation import GenerationDelta, GenerationRequest
from contracts.sampling import SamplingParams
from contracts.settings import EngineSettings
from tests.batching.tiny_models import MAX_MODEL_LEN, NUM_NEW_TOKENS


def engine_settings(path: Path, **overrides: Any) -> EngineSettings:
    """Settings that serve a tiny checkpoint on one CPU thread with a small cache."""
    values: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_threads": 1, "offline": True}
    sizes: dict[str, Any] = {"max_model_len": MAX_MODEL_LEN, "kv_cache_memory": "4MiB"}
    return EngineSettings(model=str(path), **(values | sizes | overrides))


def start_engine(path: Path, **overrides: Any) -> EngineCore:
    """A loaded engine whose steps the test drives."""
    return build_engine(engine_settings(path, **overrides), no_progress)


def fresh_scheduler(core: EngineCore, **limits: Any) -> Scheduler:
    """Another scheduler over the same runner, with other limits; what the KV blocks hold is garbage to it."""
    return Scheduler(msgspec.structs.replace(core.scheduler.config, **limits))


def greedy_request(request_id: str, prompt: list[int], **options: Any) -> GenerationRequest:
    """Ask for the continuation that the references hold."""
    return request_of(request_id, prompt, **({"temperature": 0.0, "max_tokens": NUM_NEW_TOKENS} | options))


def request_of(request_id: str, prompt: list[int], num_samples: int = 1, **sampling: Any) -> GenerationRequest:
    """A request whose other options are sampling parameters."""
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling=SamplingParams(**sampling),
        num_samples=num_samples,
    )


class Outcome:
    """What every sample of a run received: tokens, final delta, and the tokens found in the prefix cache."""

    def __init__(self) -> None:
        self.tokens: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.finals: dict[tuple[str, int], GenerationDelta] = {}

    def add(self, deltas: list[GenerationDelta]) -> None:
        """Note the deltas of one step; a second final delta of a sample is an error."""
        for delta in deltas:
            key = (delta.request_id, delta.sample_index)
            assert key not in self.finals, f"{key} got a delta after its final one"
            self.tokens[key] += delta.token_ids
            if delta.finish_reason is not None:
                self.finals[key] = delta

    def text(self, request_id: str, sample_index: int = 0) -> list[int]:
        """All tokens of one sample."""
        return self.tokens[request_id, sample_index]

    @property
    def num_cached_tokens(self) -> int:
        return sum(delta.num_cached_tokens for delta in self.finals.values())


def ignore_log(event: str, **data: object) -> None:
    """A log for execute_isolated when failures are expected."""


def run_step(scheduler: Scheduler, runner: Runner, outcome: Outcome, now_s: float) -> None:
    """schedule, execute, commit, and check the books."""
    plan = scheduler.schedule(now_s)
    assert plan is not None, "there is work, but nothing was scheduled"
    outcome.add(scheduler.commit(execute_isolated(runner, plan, ignore_log), now_s))
    scheduler.check_integrity()


def run_all(scheduler: Scheduler, runner: Runner, requests: list[GenerationRequest]) -> Outcome:
    """Submit everything at once and step until all have ended."""
    outcome = Outcome()
    for request in requests:
        scheduler.submit(request, 0.0)
    step = 0
    while scheduler.has_work:
        run_step(scheduler, runner, outcome, float(step))
        step += 1
    return outcome


def run_with_arrivals(
    scheduler: Scheduler,
    runner: Runner,
    requests: list[GenerationRequest],
    draw: random.Random,
    before_step: Callable[[Scheduler, random.Random], None],
) -> Outcome:
    """Submit the requests in order at random steps; `before_step` may change the scheduler's limits."""
    outcome = Outcome()
    left = list(requests)
    step = 0
    while left or scheduler.has_work:
        while left and (not scheduler.has_work or draw.random() < 0.3):
            scheduler.submit(left.pop(0), float(step))
        before_step(scheduler, draw)
        run_step(scheduler, runner, outcome, float(step))
        step += 1
    return outcome


def vary_budget(scheduler: Scheduler, draw: random.Random) -> None:
    """Another token budget for every step, so that prompts are cut at random places."""
    budget = draw.choice([3, 6, 9, 16, 40])
    scheduler.config = msgspec.structs.replace(
        scheduler.config, max_num_batched_tokens=budget, max_prefill_tokens_while_decoding=budget
    )
