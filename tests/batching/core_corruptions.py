"""Ways in which the books of an idle scheduler could be wrong, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable

from batching.scheduler import Scheduler
from contracts.generation import Tenant
from tests.batching.content_oracle import NAN
from tests.batching.core_world import World, small_config, small_request

Corruption = Callable[[Scheduler], object]


def reference_is_leaked(scheduler: Scheduler) -> None:
    scheduler.pool._num_refs[2] += 1


def block_is_lost(scheduler: Scheduler) -> None:
    scheduler.pool._free.remove(3)


def block_is_held_for_ever(scheduler: Scheduler) -> None:
    scheduler.pool.allocate(1)


def key_cannot_be_found(scheduler: Scheduler) -> None:
    scheduler.pool._digest_to_block.clear()


def entry_has_no_key(scheduler: Scheduler) -> None:
    scheduler.pool._digest_to_block[b"nobody's"] = 1


def queue_counts_too_much(scheduler: Scheduler) -> None:
    scheduler.waiting.num_tokens += 3


def ended_sequence_runs(scheduler: Scheduler) -> None:
    scheduler._running.append(scheduler._new_sequence(small_request("ghost", [0]), 0, 0.0, 0.0))


def ended_sequence_waits(scheduler: Scheduler) -> None:
    scheduler.shares.open("ghost")
    scheduler.waiting.push(scheduler._new_sequence(small_request("g", [0], tenant=Tenant(name="ghost")), 0, 0.0, 0.0))


def ended_sequence_is_parked(scheduler: Scheduler) -> None:
    scheduler._parked["ghost"] = [scheduler._new_sequence(small_request("ghost", [0]), 1, 0.0, 0.0)]


def grant_is_left(scheduler: Scheduler) -> None:
    scheduler.limits.admit(small_request("ghost", [0], tenant=Tenant(name="limited", max_concurrency=1)), 0.0)


def broken_block_is_held_for_ever(scheduler: Scheduler) -> None:
    scheduler._broken._suspects.update(scheduler.pool.allocate(1))


def ended_step_holds_a_block(scheduler: Scheduler) -> None:
    scheduler._in_flight._held.append(scheduler.pool.allocate(1))


CORRUPTIONS: dict[Corruption, str] = {
    reference_is_leaked: "nothing is live, but 1 blocks are held and 8 are free",
    block_is_lost: "nothing is live, but 0 blocks are held and 7 are free",
    block_is_held_for_ever: "nothing is live, but 1 blocks are held and 7 are free",
    key_cannot_be_found: "3 blocks have a key, 0 can be found",
    entry_has_no_key: "3 blocks have a key, 4 can be found",
    queue_counts_too_much: "nothing is live, but something is left: waiting_tokens 3",
    ended_sequence_runs: "nothing is live, but something is left: running 1",
    ended_sequence_waits: "nothing is live, but something is left: waiting 1, waiting_tokens 1, tenants 1",
    ended_sequence_is_parked: "nothing is live, but something is left: parked 1",
    grant_is_left: "nothing is live, but something is left: granted 1",
    broken_block_is_held_for_ever: "nothing is live, but something is left: suspect_blocks 1",
    ended_step_holds_a_block: "nothing is live, but something is left: held_blocks 1",
}


def used_world() -> World:
    """Idle, with three blocks in the prefix cache."""
    world = World(small_config())
    world.admit("first", [0, 1, 0, 1, 0, 1], max_tokens=2)
    world.drain()
    return world


def repaired_world_serves_on(corrupt: Corruption) -> str | None:
    """Corrupt, repair, and run a request that any leftover would disturb; returns what was found wrong."""
    world = used_world()
    corrupt(world.scheduler)
    for block_id in world.scheduler._broken._suspects:
        world.model.values[block_id * world.config.block_size] = NAN
    fault = world.scheduler.repair_idle()
    assert world.scheduler.repair_idle() is None
    assert world.scheduler.counters.num_integrity_faults == 1
    world.values_by_digest.clear()
    world.check()
    limited = Tenant(name="limited", max_concurrency=1)
    world.admit("second", [0, 1, 0, 1, 0, 1], max_tokens=8, tenant=limited)
    world.drain()
    assert world.log_of("second").num_cached_tokens == 0
    return fault
