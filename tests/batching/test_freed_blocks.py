"""S67: what freed or fresh KV blocks hold is never read: overwriting them before every step changes no token."""

from __future__ import annotations

import random

import pytest

from batching.engine import EngineCore
from batching.kv_cache import KVCachePool
from batching.scheduler import Scheduler
from tests.batching.real_engine import fresh_scheduler, greedy_request, run_with_arrivals, start_engine, vary_budget
from tests.batching.tiny_models import Reference, TinyModels

HUGE = 1e30
"""Finite, as the end of a block in use may hold old numbers; one that is read would drown everything else."""


@pytest.fixture(scope="module", params=["llama", "gemma2", "mistral_window"])
def reference(request: pytest.FixtureRequest, tiny_models: TinyModels) -> Reference:
    return tiny_models.reference(request.param)


@pytest.fixture(scope="module")
def core(reference: Reference) -> EngineCore:
    return start_engine(reference.path, block_size=4, max_model_len=128)


def poison(kv: KVCachePool, scheduler: Scheduler) -> int:
    """Overwrite every block that is free and cannot be found; returns their number."""
    pool = scheduler.pool
    free = [block_id for block_id in pool._free if pool._keys[block_id] is None]
    for layer in kv.layers:
        layer.k[free] = HUGE
        layer.v[free] = HUGE
    return len(free)


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_outputs_do_not_depend_on_what_freed_blocks_hold(
    reference: Reference, core: EngineCore, enable_prefix_caching: bool
) -> None:
    scheduler = fresh_scheduler(core, num_blocks=24, enable_prefix_caching=enable_prefix_caching)
    kv = core.runner._pool  # type: ignore[attr-defined]
    num_poisoned = 0

    def before_step(scheduler: Scheduler, draw: random.Random) -> None:
        nonlocal num_poisoned
        vary_budget(scheduler, draw)
        num_poisoned += poison(kv, scheduler)

    draw = random.Random(2)
    requests = [greedy_request(f"{index}-{again}", p) for again in "ab" for index, p in enumerate(reference.prompts)]
    draw.shuffle(requests)
    outcome = run_with_arrivals(scheduler, core.runner, requests, draw, before_step)
    for again in "ab":
        assert [outcome.text(f"{index}-{again}") for index in range(len(reference.prompts))] == reference.outputs
    assert num_poisoned > 100
    assert scheduler.counters.num_preemptions > 0


def test_a_block_that_is_read_would_be_noticed(reference: Reference, core: EngineCore) -> None:
    scheduler = fresh_scheduler(core, num_blocks=24)
    kv = core.runner._pool  # type: ignore[attr-defined]

    def before_step(scheduler: Scheduler, draw: random.Random) -> None:
        for sequence in scheduler._running:
            kv.layers[0].v[sequence.block_table.block_ids[-2:]] = HUGE

    requests = [greedy_request("a", reference.prompts[-1])]
    outcome = run_with_arrivals(scheduler, core.runner, requests, random.Random(2), before_step)
    assert outcome.text("a") != reference.outputs[-1]
