"""Drafts change how many steps a text takes, and nothing of the text."""

from __future__ import annotations

from typing import Any

import pytest

from batching.engine import EngineCore
from batching.scheduler import Scheduler
from contracts.generation import GenerationRequest
from tests.batching.core_world import World, small_config
from tests.batching.real_engine import Outcome, fresh_scheduler, request_of, run_all, start_engine
from tests.batching.tiny_models import FAMILIES, TinyModels, make_prompt

REPETITIVE: dict[str, Any] = {"logit_bias": ((5, 60.0), (6, 60.0)), "max_tokens": 40}
"""Two tokens take turns, so that runs of three come again and again."""
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "seed": 3},
    "truncated": {"temperature": 0.8, "top_p": 0.9, "top_k": 4, "seed": 8},
    "with log probabilities": {"temperature": 1.0, "num_logprobs": 2, "seed": 5},
    "at least so many": {"temperature": 1.0, "min_tokens": 30, "stop_token_ids": (5,), "seed": 2},
    "stopped": {"temperature": 1.0, "stop_token_ids": (6,), "seed": 4},
    "with penalties": {"temperature": 1.0, "presence_penalty": 0.5, "seed": 1},
}


@pytest.fixture(scope="module")
def core(tiny_models: TinyModels) -> EngineCore:
    return start_engine(tiny_models.reference("llama").path, block_size=4)


def said(core: EngineCore, requests: list[GenerationRequest], num_draft_tokens: int) -> tuple[Outcome, Scheduler]:
    scheduler = fresh_scheduler(core, num_draft_tokens=num_draft_tokens)
    return run_all(scheduler, core.runner, requests), scheduler


@pytest.mark.parametrize("num_draft_tokens", [1, 4, 16])
def test_text_is_the_one_without_drafts_whatever_is_asked_for(core: EngineCore, num_draft_tokens: int) -> None:
    requests = [
        request_of(name, make_prompt(4, number), **(REPETITIVE | options))
        for number, (name, options) in enumerate(OPTIONS.items())
    ]
    plain, without = said(core, requests, 0)
    drafted, scheduler = said(core, requests, num_draft_tokens)
    assert drafted.tokens == plain.tokens
    assert [final.finish_reason for final in drafted.finals.values()] != []
    assert {key: final.finish_reason for key, final in drafted.finals.items()} == {
        key: final.finish_reason for key, final in plain.finals.items()
    }
    assert without.counters.num_drafts == without.counters.num_accepted_drafts == 0
    assert 0 < scheduler.counters.num_accepted_drafts <= scheduler.counters.num_drafts
    assert scheduler.counters.num_scheduled_seqs < without.counters.num_scheduled_seqs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same_in_fewer_steps(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_engine(reference.path, block_size=4, max_model_len=128)
    requests = [
        request_of(str(index), prompt, **(REPETITIVE | {"temperature": index % 2, "seed": index}))
        for index, prompt in enumerate(reference.prompts[:6])
    ]
    plain, _ = said(core, requests, 0)
    drafted, scheduler = said(core, requests, 5)
    assert drafted.tokens == plain.tokens
    assert scheduler.counters.num_accepted_drafts > 0


def test_log_probabilities_are_those_without_drafts(core: EngineCore) -> None:
    request = request_of("r", make_prompt(4, 1), **(REPETITIVE | OPTIONS["with log probabilities"]))
    told: list[list[tuple[float, list[tuple[int, float]]]]] = [[], []]
    for found, num_draft_tokens in zip(told, (0, 4), strict=True):
        scheduler = fresh_scheduler(core, num_draft_tokens=num_draft_tokens)
        scheduler.submit(request, 0.0)
        while (plan := scheduler.schedule(0.0)) is not None:
            for delta in scheduler.commit(core.runner.execute(plan), 0.0):
                found += [(entry.logprob, entry.top) for entry in delta.logprobs or ()]
    assert len(told[0]) == len(told[1]) == 40
    assert [top[0] for _, top in told[0]] != []
    for (plain, plain_top), (drafted, drafted_top) in zip(*told, strict=True):
        assert drafted == pytest.approx(plain, abs=1e-4)
        assert [token_id for token_id, _ in drafted_top] == [token_id for token_id, _ in plain_top]


@pytest.mark.parametrize("num_running", [8, 9])
def test_drafts_end_where_the_batch_is_large_enough_without(num_running: int) -> None:
    config = small_config(
        num_blocks=200,
        max_num_seqs=64,
        max_num_batched_tokens=64,
        limits=(40, 20, 600),
        num_draft_tokens=3,
        max_steps_in_flight=2,
    )
    world = World(config)
    for number in range(num_running):
        world.admit(f"r{number}", [0, 1] * 4, max_tokens=12)
    for _ in range(4):
        world.step()
    world.planned()
    assert (world.begin_step() is None) == (num_running == 8), "a step with drafts is planned with all tokens known"
    world.drain()


def test_nobody_waits_for_a_draft() -> None:
    world = World(small_config(num_blocks=40, max_num_seqs=8, limits=(40, 20, 600), num_draft_tokens=3))
    world.admit("drafts", [0, 1] * 4, max_tokens=12)
    for _ in range(3):
        world.step()
    world.admit("comes", [1] * 9, max_tokens=3)
    assert world.planned().num_drafts == 0
    world.drain()
