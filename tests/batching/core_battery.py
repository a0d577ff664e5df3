"""Seeded random histories of a World, quick enough to be run against every mutant of the core."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from batching.block_pool import BlockPool
from batching.block_table import BlockKey, BlockTable, root_key
from batching.scheduler_config import SchedulerConfig
from batching.step import UNKNOWN_TOKEN
from contracts.generation import GenerationRequest, Tenant
from tests.batching.core_cache_battery import cache_battery
from tests.batching.core_corruptions import CORRUPTIONS, repaired_world_serves_on
from tests.batching.core_tenant_battery import tenant_battery
from tests.batching.core_world import World, small_config, small_request

NUM_RANDOM = 200
NUM_UNDER_PRESSURE = 8
NUM_OUT_OF_MEMORY = 4
TENANTS = (
    Tenant(),
    Tenant(name="double", weight=2.0),
    Tenant(name="half", weight=0.5, max_concurrency=2),
    Tenant(name="limited", requests_per_minute=7, tokens_per_minute=50),
)
"""Weights are powers of two, so that counters are exact."""


def battery() -> list[Callable[[], object]]:
    """What every mutant must fail somewhere and the core must pass, cheapest first."""
    scripted = [
        end_of_a_prefix_is_evicted_first,
        least_recently_used_content_is_evicted_first,
        digests_are_not_trusted_alone,
        digests_of_parents_are_not_trusted,
        second_request_finds_the_prefix_of_the_first,
        samples_share_the_prompt,
        every_sample_uses_up_what_it_generates,
        step_is_planned_before_the_tokens_of_the_last_one,
        drafts_come_true,
    ]
    under_pressure = [partial(play_under_pressure, seed) for seed in range(NUM_UNDER_PRESSURE)]
    under_pressure += [partial(play_out_of_memory, seed) for seed in range(NUM_OUT_OF_MEMORY)]
    repaired = [partial(repaired_world_serves_on, corrupt) for corrupt in CORRUPTIONS]
    return [
        *scripted,
        *cache_battery(),
        *repaired,
        *under_pressure,
        *(partial(play, seed, 80) for seed in range(NUM_RANDOM)),
        *tenant_battery(),
    ]


def first_failure() -> Exception | None:
    """Run the battery until something goes wrong."""
    for part in battery():
        try:
            part()
        except Exception as error:  # a bug may show itself in any way
            return error
    return None


# ---- scripted


def _cached_chain(pool: BlockPool, salt: str, num_blocks: int) -> list[BlockKey]:
    """Compute and release a prefix of one-token blocks."""
    table = BlockTable(1, salt)
    table.extend_keys([0] * num_blocks, num_blocks)
    block_ids = pool.allocate(num_blocks)
    for block_id, key in zip(block_ids, table.keys, strict=True):
        pool.register(block_id, key)
    pool.release(block_ids)
    return table.keys


def end_of_a_prefix_is_evicted_first() -> None:
    pool = BlockPool(3)
    keys = _cached_chain(pool, "", 3)
    pool.allocate(1)
    assert len(pool.match(keys)) == 2


def least_recently_used_content_is_evicted_first() -> None:
    pool = BlockPool(4)
    old, new = _cached_chain(pool, "old", 2), _cached_chain(pool, "new", 2)
    pool.allocate(2)
    assert (len(pool.match(old)), len(pool.match(new))) == (0, 2)


def digests_are_not_trusted_alone() -> None:
    pool = BlockPool(1)
    pool.register(pool.allocate(1)[0], BlockKey(b"same", (0, 1)))
    assert pool.match([BlockKey(b"same", (0, 0))]) == []


def digests_of_parents_are_not_trusted() -> None:
    """S66: the child of another parent, or of another salt, whose digest collides."""
    pool = BlockPool(2)
    other_parent = BlockKey(b"same parent", (1,), root_key(""))
    other_child = BlockKey(b"same child", (0,), other_parent)
    parent = BlockKey(b"same parent", (0,), root_key(""))
    first, second = pool.allocate(2)
    pool.register(first, parent)
    pool.register(second, other_child)
    assert pool.match([parent, BlockKey(b"same child", (0,), parent)]) == [first]
    assert pool.match([BlockKey(b"same parent", (0,), root_key("other"))]) == []


def second_request_finds_the_prefix_of_the_first() -> None:
    world = World(small_config())
    for request_id in ("first", "second"):
        world.submit(small_request(request_id, [0, 1, 0, 1, 1], max_tokens=2))
        world.drain()
    assert [log.num_cached_tokens for log in world.logs.values()] == [0, 4]


def samples_share_the_prompt() -> None:
    world = World(small_config(max_num_batched_tokens=16, enable_prefix_caching=False))
    world.submit(small_request("r", [0, 1, 0, 1, 1], num_samples=3, max_tokens=8, ignore_eos=True))
    world.step()
    world.step()
    tables = [log.sequence.block_table.block_ids for log in world.live]
    assert len({tuple(block_ids[:2]) for block_ids in tables}) == 1
    assert [len(block_ids) for block_ids in tables] == [3, 3, 3]
    world.drain()


def every_sample_uses_up_what_it_generates() -> None:
    world = World(small_config())
    tenant = Tenant(name="limited", tokens_per_minute=20)
    world.admit("r", [0, 1], num_samples=2, max_tokens=4, tenant=tenant)
    world.drain()
    assert not world.submit(small_request("eleven", [0] * 7, max_tokens=4, tenant=tenant))
    assert world.submit(small_request("ten", [0] * 6, max_tokens=4, tenant=tenant))


def step_is_planned_before_the_tokens_of_the_last_one() -> None:
    world = World(small_config(max_steps_in_flight=2))
    world.admit("r", [0, 1], max_tokens=3)
    world.planned()
    assert world.planned().sequences[0].token_ids == [UNKNOWN_TOKEN]
    world.finish_step()
    assert world.planned().sequences[0].start == 3
    world.finish_step()
    assert world.begin_step() is None, "the last token ends it"
    world.drain()


def drafts_come_true() -> None:
    world = World(small_config(num_draft_tokens=2, num_blocks=30, limits=(60, 10, 60)))
    world.admit("r", [0, 1] * 6, max_tokens=40)
    world.drain()
    counters = world.scheduler.counters
    assert counters.num_drafts > counters.num_accepted_drafts > 0
    assert counters.num_steps <= 40 - counters.num_accepted_drafts + 4


# ---- random


def random_config(rng: random.Random) -> SchedulerConfig:
    return small_config(
        num_blocks=rng.choice([4, 4, 5, 5, 6, 7, 8, 12]),
        block_size=rng.randint(1, 4),
        max_num_seqs=rng.randint(1, 4),
        max_num_batched_tokens=rng.randint(1, 16),
        max_prefill_tokens_while_decoding=rng.randint(1, 8),
        enable_prefix_caching=rng.random() < 0.7,
        limits=(rng.randint(8, 24), rng.randint(3, 12), rng.randint(8, 60)),
        max_steps_in_flight=rng.randint(1, 2),
        num_draft_tokens=rng.choice([0, 0, 1, 2, 3]),
    )


def random_request(rng: random.Random, tenants: tuple[Tenant, ...] = (Tenant(),)) -> GenerationRequest:
    is_endless, stop_token_ids = rng.choice([(False, ()), (True, ()), (True, ()), (True, ()), (True, (2,))])
    return small_request(
        f"r{rng.randrange(8)}",
        [rng.randint(0, 1) for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 6, 8, 12]))],
        cache_salt=rng.choice(["", "a"]),
        num_samples=rng.choice([1, 1, 1, 2, 3]),
        max_tokens=rng.choice([1, 2, 3, 4, 6, 8, 10, 14]),
        priority=rng.choice([0, 0, 0, 1, -1]),
        timeout_s=rng.choice([None, None, None, 1.0, 3.0]),
        ignore_eos=is_endless,
        stop_token_ids=stop_token_ids,
        presence_penalty=rng.choice([0.0, 0.0, 1.0]),
        seed=rng.randrange(3),
        tenant=rng.choice(tenants),
    )


def play(seed: int, num_calls: int) -> World:
    """Make `num_calls` random calls on a random small world, then drain it; raises where an invariant breaks."""
    rng = random.Random(seed)
    world = World(random_config(rng))
    tenants = rng.choice([TENANTS, TENANTS, TENANTS[:1]])
    for _ in range(num_calls):
        _call(world, rng, tenants)
    world.drain()
    return world


def play_under_pressure(seed: int) -> World:
    """Submit long requests of one priority to a pool that holds about one of them, and run them all to their end."""
    rng = random.Random(seed)
    world = World(
        small_config(
            num_blocks=rng.randint(11, 16),
            block_size=1,
            max_num_seqs=rng.randint(5, 7),
            max_num_batched_tokens=64,
            max_prefill_tokens_while_decoding=64,
            enable_prefix_caching=False,
            limits=(24, 20, 1000),
        )
    )
    for number in range(12):
        max_tokens = rng.choice([9, 10, 10, 10])
        world.submit(small_request(f"r{number}", [number % 2], max_tokens=max_tokens, ignore_eos=True))
        world.advance(0.1)
    world.drain()
    return world


def play_out_of_memory(seed: int) -> World:
    """Run out of memory once, and several times in a row when that is nearly forgotten, while long prompts come in."""
    rng = random.Random(seed)
    world = World(
        small_config(num_blocks=60, max_num_seqs=5, max_num_batched_tokens=rng.choice([12, 16]), limits=(24, 20, 1000))
    )
    first = rng.randint(5, 20)
    again = first + rng.choice([60, 66, 80])
    shortages = {first, *range(again, again + rng.randint(1, 4))}
    for number in range(again + 70):
        if world.scheduler.num_waiting < 2:
            world.admit(f"r{number}", [rng.randint(0, 1) for _ in range(rng.choice([2, 13]))], max_tokens=10)
        world.step(is_out_of_memory=number in shortages)
    world.drain()
    return world


def play_all_under_pressure(seeds: range) -> int:
    """Returns the number of preemptions."""
    return sum(play_under_pressure(seed).scheduler.counters.num_preemptions for seed in seeds)


def _call(world: World, rng: random.Random, tenants: tuple[Tenant, ...]) -> None:
    choice = rng.random()
    if choice < 0.2:
        world.submit(random_request(rng, tenants))
    elif choice < 0.24:
        world.abort(f"r{rng.randrange(8)}")
    elif choice < 0.3:
        world.advance(rng.choice([0.0, 0.5, 1.0, 2.0]))
    elif choice < 0.32 and not world.plans:
        world.forget_all()
    elif not world.plans or (world.may_begin and choice < 0.7):
        world.begin_step()
    elif choice < 0.98:
        broken = frozenset({rng.randrange(4)} if rng.random() < 0.1 else ())
        world.finish_step(broken, is_out_of_memory=rng.random() < 0.03)
    else:
        world.fail_step()
