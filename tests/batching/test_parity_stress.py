"""Greedy output stays that of transformers under random arrivals, chunks, preemption and prefix-cache hits."""

from __future__ import annotations

import random

import pytest

from batching.engine import EngineCore
from tests.batching.real_engine import (
    fresh_scheduler,
    greedy_request,
    run_all,
    run_with_arrivals,
    start_engine,
    vary_budget,
)
from tests.batching.tiny_models import FAMILIES, Reference, TinyModels, make_prompt

ARRIVALS_SEED = 2
"""The families' prompts are equally long, so that all of them see the same arrivals, chunks and preemptions."""


@pytest.fixture(scope="module", params=FAMILIES)
def reference(request: pytest.FixtureRequest, tiny_models: TinyModels) -> Reference:
    return tiny_models.reference(request.param)


@pytest.fixture(scope="module", params=[4, 16])
def core(request: pytest.FixtureRequest, reference: Reference) -> EngineCore:
    return start_engine(reference.path, block_size=request.param, max_model_len=128)


def test_arrivals_chunks_and_preemption_change_no_token(reference: Reference, core: EngineCore) -> None:
    # Room for the longest sequence, 84 tokens, and little more.
    num_blocks = 96 // core.info.block_size
    scheduler = fresh_scheduler(core, num_blocks=num_blocks, enable_prefix_caching=False)
    draw = random.Random(ARRIVALS_SEED)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    draw.shuffle(requests)
    outcome = run_with_arrivals(scheduler, core.runner, requests, draw, vary_budget)
    assert [outcome.text(str(index)) for index in range(len(requests))] == reference.outputs
    assert scheduler.counters.num_preemptions > 0
    assert scheduler.pool.num_free_blocks == scheduler.pool.num_blocks


def test_prefix_cache_hits_change_no_token(reference: Reference, core: EngineCore) -> None:
    first = [greedy_request(f"first-{index}", prompt, max_tokens=1) for index, prompt in enumerate(reference.prompts)]
    again = [greedy_request(f"again-{index}", prompt) for index, prompt in enumerate(reference.prompts)]
    scheduler = fresh_scheduler(core, max_num_batched_tokens=32)
    run_all(scheduler, core.runner, first)
    warm = run_all(scheduler, core.runner, again)
    block_size = core.info.block_size
    num_full_prompt_tokens = sum((len(prompt) - 1) // block_size * block_size for prompt in reference.prompts)
    assert warm.num_cached_tokens == num_full_prompt_tokens > 0
    assert [warm.text(request.request_id) for request in again] == reference.outputs


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 1, 2], [0, 0, 0], [2, 0, 1], [1, 2, 2]], ids=str)
def test_equal_blocks_after_other_prefixes_are_not_taken_for_one_another(
    tiny_models: TinyModels, order: list[int]
) -> None:
    core = start_engine(tiny_models.reference("llama").path, block_size=4)
    pieces = [make_prompt(4, seed) for seed in range(3)]
    first = [[*pieces[a], *pieces[b], *pieces[c], 5] for a in range(3) for b in range(3) for c in range(3)]
    prompt = [token for piece in order for token in pieces[piece]] + [7, 9]
    alone = fresh_scheduler(core, enable_prefix_caching=False)
    expected = run_all(alone, core.runner, [greedy_request("a", prompt)]).text("a")
    scheduler = fresh_scheduler(core)
    run_all(scheduler, core.runner, [greedy_request(str(i), other, max_tokens=1) for i, other in enumerate(first)])
    outcome = run_all(scheduler, core.runner, [greedy_request("a", prompt)])
    assert outcome.text("a") == expected
    assert outcome.num_cached_tokens == 12
