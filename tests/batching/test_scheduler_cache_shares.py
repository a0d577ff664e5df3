"""S68: what one tenant has in the prefix cache is not washed away by the prompts of another."""

from __future__ import annotations

import pytest

from batching.free_list import CLAIM_S
from contracts.generation import Tenant
from tests.batching.core_cache_battery import CONVERSATION, LOUD, QUIET, num_cached_after_flood, turn
from tests.batching.core_world import World, small_config


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_conversation_survives_a_flood(weight: float) -> None:
    assert num_cached_after_flood(quiet=Tenant(name="quiet", weight=weight)) == 8


def test_conversation_that_is_more_than_its_part_is_cut_to_it() -> None:
    """A quarter of the 12 blocks of two tokens that are cached while four are in use."""
    light = Tenant(name="quiet", weight=1 / 3)
    assert num_cached_after_flood(quiet=light) == 6


def test_conversation_left_alone_for_long_is_flooded() -> None:
    assert num_cached_after_flood(pause_s=CLAIM_S + 1.0) == 0


def test_flood_of_the_same_tenant_takes_the_oldest_as_ever() -> None:
    assert num_cached_after_flood(loud=QUIET) == 0


def test_cached_blocks_give_way_to_what_runs() -> None:
    world = World(small_config(num_blocks=8))
    turn(world, "first", CONVERSATION, QUIET)
    world.admit("long", [1] * 8, max_tokens=8, tenant=LOUD, cache_salt="loud")
    world.drain()
    assert world.log_of("long").num_preemptions == 0
    assert len(world.log_of("long").token_ids) == 8
