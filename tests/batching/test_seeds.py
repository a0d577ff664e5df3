"""A seed gives the same tokens alone, among others, and after preemption; samples of one request differ and share."""

from __future__ import annotations

import random
from typing import Any

import pytest

from batching.engine import EngineCore
from contracts.generation import GenerationRequest
from tests.batching.real_engine import Outcome, fresh_scheduler, request_of, run_all, run_step, start_engine
from tests.batching.tiny_models import VOCAB_SIZE, TinyModels, make_prompt

NUM_SEEDS = 100
NUM_MATES = 63
MAX_TOKENS = 8
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05, "presence_penalty": 0.5},
    {"temperature": 0.9, "repetition_penalty": 1.2, "logit_bias": ((7, 2.0),)},
)


@pytest.fixture(scope="module")
def core(tiny_models: TinyModels) -> EngineCore:
    return start_engine(tiny_models.reference("llama").path, block_size=4, max_num_seqs=64)


def seeded_request(seed: int) -> GenerationRequest:
    """The request under test: its prompt and options depend on the seed only."""
    prompt = make_prompt(3 + seed % 11, seed)
    return request_of(f"seed-{seed}", prompt, seed=seed, max_tokens=MAX_TOKENS, **OPTIONS[seed % len(OPTIONS)])


def mate(index: int) -> GenerationRequest:
    """A request that shares the batch: other lengths, seeds and options, greedy ones among them."""
    draw = random.Random(index)
    options: dict[str, Any] = [{"temperature": 0.0}, {"temperature": 2.0}, {"temperature": 0.5, "top_k": 3}][index % 3]
    prompt = make_prompt(draw.randrange(1, 40), 5000 + index)
    return request_of(f"mate-{index}", prompt, seed=draw.getrandbits(60), max_tokens=draw.randrange(1, 20), **options)


@pytest.fixture(scope="module")
def solo(core: EngineCore) -> list[list[int]]:
    """What each seed says when it is alone in the engine."""
    scheduler = fresh_scheduler(core, max_num_seqs=1, enable_prefix_caching=False)
    outcome = run_all(scheduler, core.runner, [seeded_request(seed) for seed in range(NUM_SEEDS)])
    return [outcome.text(f"seed-{seed}") for seed in range(NUM_SEEDS)]


def seeds_among_mates(first: int, last: int) -> list[GenerationRequest]:
    requests = [seeded_request(seed) for seed in range(first, last)]
    requests += [mate(index) for index in range(NUM_MATES + 1 - len(requests))]
    random.Random(first).shuffle(requests)
    return requests


def test_seeds_give_different_texts(solo: list[list[int]]) -> None:
    assert len({tuple(tokens) for tokens in solo}) > 0.95 * NUM_SEEDS


@pytest.mark.parametrize("seed", [0, 41, 99])
def test_one_seed_among_63_others_gives_its_solo_tokens(core: EngineCore, solo: list[list[int]], seed: int) -> None:
    scheduler = fresh_scheduler(core)
    outcome = run_all(scheduler, core.runner, seeds_among_mates(seed, seed + 1))
    assert len(outcome.finals) == 64
    assert outcome.text(f"seed-{seed}") == solo[seed]


@pytest.mark.parametrize("first", [0, 50])
def test_every_seed_in_a_mixed_batch_gives_its_solo_tokens(core: EngineCore, solo: list[list[int]], first: int) -> None:
    scheduler = fresh_scheduler(core, max_num_batched_tokens=100)
    outcome = run_all(scheduler, core.runner, seeds_among_mates(first, first + 50))
    assert [outcome.text(f"seed-{seed}") for seed in range(first, first + 50)] == solo[first : first + 50]


@pytest.mark.parametrize("first", [0, 50])
def test_preemption_changes_no_seeded_token(core: EngineCore, solo: list[list[int]], first: int) -> None:
    scheduler = fresh_scheduler(core, num_blocks=24)
    outcome = run_all(scheduler, core.runner, seeds_among_mates(first, first + 50))
    assert scheduler.counters.num_preemptions >= 5
    assert [outcome.text(f"seed-{seed}") for seed in range(first, first + 50)] == solo[first : first + 50]


def test_samples_of_one_request_differ_and_repeat(core: EngineCore) -> None:
    request = request_of("three", make_prompt(9, 1), num_samples=3, seed=11, max_tokens=12)
    first = run_all(fresh_scheduler(core), core.runner, [request])
    crowd = [mate(index) for index in range(30)]
    again = run_all(fresh_scheduler(core, num_blocks=40), core.runner, [*crowd[:15], request, *crowd[15:]])
    texts = [tuple(first.text("three", index)) for index in range(3)]
    assert len(set(texts)) == 3
    assert [tuple(again.text("three", index)) for index in range(3)] == texts


@pytest.mark.parametrize("has_prefix_cache", [True, False])
def test_samples_of_one_request_share_the_blocks_of_their_prompt(core: EngineCore, has_prefix_cache: bool) -> None:
    scheduler = fresh_scheduler(core, enable_prefix_caching=has_prefix_cache)
    outcome = Outcome()
    scheduler.submit(request_of("three", make_prompt(33, 2), num_samples=3, max_tokens=3), 0.0)
    run_step(scheduler, core.runner, outcome, 0.0)  # sample 0 computes the prompt
    run_step(scheduler, core.runner, outcome, 1.0)  # the others take its eight full blocks
    assert scheduler.num_running == 3
    assert scheduler.pool.num_blocks - scheduler.pool.num_free_blocks == 8 + 3


def test_tokens_are_within_the_vocabulary(solo: list[list[int]]) -> None:
    assert all(0 <= token < VOCAB_SIZE for tokens in solo for token in tokens)
