"""Histories of tenants that share the prefix cache, for the battery: floods, and random calls next to a plain list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from batching.free_list import CLAIM_S
from contracts.generation import Tenant
from tests.batching.core_world import World, small_config
from tests.batching.free_list_oracle import play_free_list

NUM_RANDOM = 10
NUM_FLOOD = 60
CONVERSATION = [0, 1, 1, 0, 0, 1, 0, 1, 0]
QUIET, LOUD = Tenant(name="quiet"), Tenant(name="loud")


def cache_battery() -> list[Callable[[], object]]:
    """What every mutant must fail somewhere, and the core must pass."""
    scripted = [flood_leaves_the_conversation_of_another, flood_takes_what_is_left_alone_for_long]
    return [*scripted, *(partial(play_free_list, seed) for seed in range(NUM_RANDOM))]


def flood_leaves_the_conversation_of_another() -> None:
    assert num_cached_after_flood() == 8


def flood_takes_what_is_left_alone_for_long() -> None:
    assert num_cached_after_flood(pause_s=CLAIM_S + 1.0) == 0


def num_cached_after_flood(*, quiet: Tenant = QUIET, loud: Tenant = LOUD, pause_s: float = 0.0) -> int:
    """Prompt tokens that the second turn of `quiet` finds after `loud` sent far more than the pool holds."""
    world = World(small_config(num_blocks=16))
    turn(world, "first", CONVERSATION, quiet)
    world.advance(pause_s)
    for number in range(NUM_FLOOD):
        turn(world, f"flood{number}", [int(digit) for digit in f"{number:08b}"], loud)
    assert world.scheduler.pool.num_cached_blocks == 16
    turn(world, "second", CONVERSATION, quiet)
    return world.log_of("second").num_cached_tokens or 0


def turn(world: World, request_id: str, prompt: list[int], tenant: Tenant) -> None:
    """One request from its beginning to its end; a tenant has a salt of its own."""
    world.admit(request_id, prompt, max_tokens=1, tenant=tenant, cache_salt=tenant.name)
    world.drain()
