"""Seeded random histories of a World, quick enough to be run against every mutant of the core."""

from __future__ import annotations

import random

from batching.scheduler_config import SchedulerConfig
from contracts.generation import GenerationRequest
from tests.batching.core_world import World, small_config, small_request


def random_config(rng: random.Random) -> SchedulerConfig:
    return small_config(
        num_blocks=rng.choice([4, 4, 5, 5, 6, 7, 8, 12]),
        block_size=rng.randint(1, 4),
        max_num_seqs=rng.randint(1, 4),
        max_num_batched_tokens=rng.randint(1, 16),
        max_prefill_tokens_while_decoding=rng.randint(1, 8),
        enable_prefix_caching=rng.random() < 0.7,
        limits=(rng.randint(8, 24), rng.randint(3, 12), rng.randint(8, 60)),
    )


def random_request(rng: random.Random) -> GenerationRequest:
    is_endless, stop_token_ids = rng.choice([(False, ()), (True, ()), (True, ()), (True, ()), (True, ()), (True, (2,))])
    return small_request(
        f"r{rng.randrange(12)}",
        [rng.randint(0, 1) for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 6, 8, 12]))],
        cache_salt=rng.choice(["", "a"]),
        num_samples=rng.choice([1, 1, 1, 2, 3]),
        max_tokens=rng.choice([1, 2, 3, 4, 6, 8, 10, 14]),
        priority=rng.choice([0, 0, 0, 1, -1]),
        timeout_s=rng.choice([None, None, None, 1.0, 3.0]),
        ignore_eos=is_endless,
        stop_token_ids=stop_token_ids,
        presence_penalty=rng.choice([0.0, 0.0, 1.0]),
    )


def play(seed: int, num_calls: int) -> World:
    """Make `num_calls` random calls on a random small world, then drain it; raises where an invariant breaks."""
    rng = random.Random(seed)
    world = World(random_config(rng))
    for _ in range(num_calls):
        _call(world, rng)
    world.drain()
    return world


def _call(world: World, rng: random.Random) -> None:
    choice = rng.random()
    if choice < 0.2:
        world.submit(random_request(rng))
    elif choice < 0.23:
        world.abort(f"r{rng.randrange(12)}")
    elif choice < 0.29:
        world.advance(rng.choice([0.0, 0.5, 1.0, 2.0]))
    elif choice < 0.31 and world.plan is None:
        world.forget_all()
    elif world.plan is None:
        world.begin_step()
    elif choice < 0.98:
        world.finish_step(frozenset({rng.randrange(4)} if rng.random() < 0.06 else ()))
    else:
        world.fail_step()
