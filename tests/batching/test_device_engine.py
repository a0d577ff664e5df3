"""The scheduler and the device's runner together, one step ahead: every text is that of the request alone."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batching.async_engine import AsyncEngine
from batching.device_ops import TorchOps
from batching.engine import EngineCore, build_engine
from batching.model_loader import no_progress
from batching.offline import OfflineEngine
from batching.scheduler import Scheduler
from batching.step_pipeline import StepPipeline
from contracts.generation import GenerationRequest
from tests.batching.device_rig import start_device_engine
from tests.batching.real_engine import (
    Outcome,
    engine_settings,
    fresh_scheduler,
    greedy_request,
    ignore_log,
    request_of,
    run_all,
    start_engine,
)
from tests.batching.tiny_models import FAMILIES, TinyModels, make_prompt

OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0, "ignore_eos": False, "stop_token_ids": (3, 5, 8, 13, 21, 34, 55, 89)},
    {"temperature": 0.7, "top_p": 0.9, "num_logprobs": 3},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "repetition_penalty": 1.2, "logit_bias": ((7, 2.0), (9, -100.0))},
    {"temperature": 1.5, "min_tokens": 6, "stop_token_ids": (3, 5, 8, 13, 21, 34, 55, 89)},
)
FEW = ("llama", "qwen3", "mistral_window", "gemma2", "gpt2", "gpt_oss")
MORE = tuple(family for family in FAMILIES if family not in FEW)
"""One step at a time all of them are tested in test_device_runner."""
REPETITIVE: dict[str, Any] = {"logit_bias": ((5, 60.0), (6, 60.0)), "max_tokens": 30}


def run_ahead(
    scheduler: Scheduler, core: EngineCore, arrivals: list[tuple[int, GenerationRequest]]
) -> tuple[Outcome, int]:
    """(what was said, in how many turns a step was planned ahead); each request comes in the turn that it names."""
    pipeline, outcome = StepPipeline(core.runner, ignore_log), Outcome()
    turn = num_ahead = 0
    arrivals = sorted(arrivals, key=lambda arrival: arrival[0])
    while arrivals or scheduler.has_work or scheduler.is_step_in_flight:
        while arrivals and arrivals[0][0] <= turn:
            scheduler.submit(arrivals.pop(0)[1], float(turn))
        is_in_flight = scheduler.is_step_in_flight
        plan = scheduler.schedule(float(turn)) if scheduler.has_work else None
        num_ahead += is_in_flight and plan is not None
        output = pipeline.advance(plan)
        if output is not None:
            outcome.add(scheduler.commit(output, float(turn)))
        scheduler.check_integrity()
        turn += 1
    return outcome, num_ahead


@pytest.mark.parametrize("family", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_family_continues_as_in_transformers(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_device_engine(reference.path, block_size=4, max_model_len=128)
    assert core.scheduler.config.max_steps_in_flight == 2
    scheduler = fresh_scheduler(core, max_num_batched_tokens=23, num_blocks=50)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    outcome, num_ahead = run_ahead(scheduler, core, [(3 * index, request) for index, request in enumerate(requests)])
    assert [outcome.text(request.request_id) for request in requests] == reference.outputs
    assert num_ahead > 10


@pytest.fixture(scope="module")
def ahead(tiny_models: TinyModels) -> EngineCore:
    return start_device_engine(tiny_models.reference("qwen3").path, block_size=4, max_model_len=128, max_num_seqs=16)


@pytest.fixture(scope="module")
def plain(tiny_models: TinyModels) -> EngineCore:
    return start_engine(tiny_models.reference("qwen3").path, block_size=4, max_model_len=128)


def options_of(number: int, rng: random.Random) -> dict[str, Any]:
    return {"max_tokens": rng.randrange(1, 30), "seed": number, "ignore_eos": True} | OPTIONS[number % len(OPTIONS)]


@pytest.mark.parametrize("num_blocks", [18, 200], ids=["crowded", "roomy"])
@pytest.mark.parametrize("num_draft_tokens", [0, 4])
def test_what_is_sampled_is_what_the_plain_runner_samples(
    plain: EngineCore, ahead: EngineCore, num_blocks: int, num_draft_tokens: int
) -> None:
    rng = random.Random(num_blocks)
    requests = [
        request_of(str(number), make_prompt(rng.randrange(1, 30), number % 7), **options_of(number, rng))
        for number in range(28)
    ]
    expected = run_all(fresh_scheduler(plain, max_num_seqs=1), plain.runner, requests)
    scheduler = fresh_scheduler(
        ahead, num_blocks=num_blocks, max_num_batched_tokens=40, num_draft_tokens=num_draft_tokens
    )
    outcome, num_ahead = run_ahead(scheduler, ahead, [(rng.randrange(30), request) for request in requests])
    assert outcome.tokens == expected.tokens
    assert {key: final.finish_reason for key, final in outcome.finals.items()} == {
        key: final.finish_reason for key, final in expected.finals.items()
    }
    assert num_ahead > 0 or num_draft_tokens > 0, "few run, and these draft"
    assert (scheduler.counters.num_preemptions > 0) == (num_blocks == 18)


def test_drafts_come_true_over_device_rows(plain: EngineCore, ahead: EngineCore) -> None:
    requests = [
        request_of(str(number), make_prompt(5, number), temperature=number % 2, seed=number, **REPETITIVE)
        for number in range(6)
    ]
    expected = run_all(fresh_scheduler(plain), plain.runner, requests)
    scheduler = fresh_scheduler(ahead, num_draft_tokens=5)
    outcome, num_ahead = run_ahead(scheduler, ahead, [(0, request) for request in requests])
    assert outcome.tokens == expected.tokens
    assert scheduler.counters.num_accepted_drafts > 20
    assert num_ahead == 0


def test_offline_engine_runs_ahead(tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tiny_models.reference("llama")
    monkeypatch.setattr("batching.engine.select_ops", lambda device: TorchOps())
    outcome = Outcome()
    with OfflineEngine(engine_settings(reference.path, max_model_len=128)) as engine:
        requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
        outcome.add(list(engine.generate(requests)))
        assert engine.forward_name == "DeviceLlama"
    assert [outcome.text(str(index)) for index in range(len(requests))] == reference.outputs


async def test_served_engine_runs_ahead(tiny_models: TinyModels) -> None:
    reference = tiny_models.reference("llama")
    engine = await start_served(reference.path)
    streams = [
        await engine.submit(greedy_request(str(index), prompt)) for index, prompt in enumerate(reference.prompts)
    ]
    texts: list[list[int]] = []
    for stream in streams:
        texts.append([])
        while deltas := await stream.take():
            texts[-1] += [token_id for delta in deltas for token_id in delta.token_ids]
    assert texts == reference.outputs
    await engine.drain(5.0)
    assert engine.stats().num_free_blocks == engine.stats().num_blocks


async def start_served(path: Path) -> AsyncEngine:
    executor = ThreadPoolExecutor(max_workers=1)
    settings = engine_settings(path, max_model_len=128)
    core = await asyncio.get_running_loop().run_in_executor(
        executor, lambda: build_engine(settings, no_progress, TorchOps())
    )
    return AsyncEngine(core, executor)
