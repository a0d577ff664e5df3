"""What the scheduler promises several tenants: turns by service and weight, and one tenant's flood is its own."""

from __future__ import annotations

import pytest

from batching.scheduler import Scheduler
from contracts.errors import InvalidValue
from contracts.generation import Tenant
from tests.batching.core_tenant_battery import play_backlogged, play_tenants_under_pressure
from tests.batching.core_world import World, small_config, small_request

A, B, C = (Tenant(name=name) for name in "abc")
TWICE = Tenant(name="twice", weight=2.0)
HALF = Tenant(name="half", weight=0.5)


def one_by_one() -> World:
    """Whoever is next has the batch for itself."""
    return World(small_config(num_blocks=24, max_num_seqs=1, max_num_batched_tokens=24, limits=(24, 300, 5000)))


def admit_all(world: World, ids: str, prompt: list[int], max_tokens: int, tenant: Tenant) -> None:
    """Submit a request for each id, with nothing in common in the prefix cache."""
    for request_id in ids.split():
        world.admit(request_id, prompt, max_tokens=max_tokens, tenant=tenant, cache_salt=request_id)


def order_of_admission(world: World) -> str:
    """Run everything to its end; the request ids in the order in which they came to run."""
    ids: list[str] = []
    while world.scheduler.has_work:
        ids += [world.logs[row.seq_id].request.request_id for row in world.planned().sequences]
        world.finish_step()
    return " ".join(dict.fromkeys(ids))


def test_tenants_take_turns_whoever_came_first() -> None:
    world = one_by_one()
    admit_all(world, "a1 a2 a3 a4", [0, 1], 1, A)
    admit_all(world, "b1 b2", [0, 1], 1, B)
    assert order_of_admission(world) == "a1 b1 a2 b2 a3 a4"


def test_generated_tokens_count() -> None:
    world = one_by_one()
    admit_all(world, "long1 long2", [0], 6, A)
    admit_all(world, "b1 b2 b3 b4", [0], 1, B)
    assert order_of_admission(world) == "long1 b1 b2 b3 b4 long2"


def test_prompt_tokens_count() -> None:
    world = one_by_one()
    admit_all(world, "long1 long2", [0, 1, 0, 1, 0, 1, 0], 1, A)
    admit_all(world, "b1 b2 b3 b4", [0], 1, B)
    assert order_of_admission(world) == "long1 b1 b2 b3 b4 long2"


def test_four_times_the_weight_gives_four_times_the_service() -> None:
    world = one_by_one()
    admit_all(world, "h1 h2 h3", [0, 1, 0], 1, HALF)
    admit_all(world, "t1 t2 t3 t4 t5 t6 t7 t8", [0, 1, 0], 1, TWICE)
    assert order_of_admission(world) == "h1 t1 t2 t3 t4 h2 t5 t6 t7 t8 h3"


def test_prompt_tokens_from_the_cache_are_free() -> None:
    world = one_by_one()
    prompt = [0, 1, 0, 1, 0, 1, 0, 1, 0]
    admit_all(world, "a1", prompt, 1, A)
    world.admit("a2", prompt, max_tokens=1, tenant=A, cache_salt="a1")
    world.admit("a3", prompt, max_tokens=1, tenant=A, cache_salt="a1")
    admit_all(world, "b1 b2 b3", [0, 1, 0, 1, 0, 1, 0], 1, B)
    assert order_of_admission(world) == "a1 b1 b2 a2 a3 b3"
    assert world.log_of("a3").num_cached_tokens == 8


def test_priority_counts_within_a_tenant_only() -> None:
    world = one_by_one()
    admit_all(world, "a1 a2", [0, 1], 1, A)
    world.admit("urgent", [0, 1], max_tokens=1, tenant=A, priority=-5)
    admit_all(world, "b1 b2", [1, 1], 1, B)
    assert order_of_admission(world) == "urgent b1 a1 b2 a2"


def test_tenant_that_was_idle_has_saved_up_no_turns() -> None:
    world = one_by_one()
    admit_all(world, "a1 a2 a3 a4 a5 a6", [0, 1, 0], 2, A)
    admit_all(world, "b1", [0], 1, B)
    for _ in range(8):
        world.step()
    admit_all(world, "b2 b3 b4", [0, 1, 0], 2, B)
    assert order_of_admission(world) == "a4 b2 a5 b3 a6 b4"


def test_client_that_pauses_between_requests_gets_its_share_and_no_more() -> None:
    world = one_by_one()
    admit_all(world, "a1 a2 a3 a4 a5 a6 a7 a8", [0], 1, A)
    order: list[str] = []
    number = 0
    while world.scheduler.has_work:
        if "b" not in {log.request.tenant.name for log in world.live} and number < 2:
            number += 1
            admit_all(world, f"b{number}", [0, 1, 0, 1, 0, 1, 0], 1, B)
        order += [world.logs[row.seq_id].request.request_id for row in world.planned().sequences]
        world.finish_step()
    assert order == ["a1", "b1", "a2", "a3", "a4", "a5", "b2", "a6", "a7", "a8"]


@pytest.mark.parametrize("num_seqs", [1, 4])
def test_light_tenant_waits_for_one_seat_behind_a_hundred_requests_of_another(num_seqs: int) -> None:
    config = small_config(num_blocks=40, max_num_seqs=num_seqs, max_num_batched_tokens=24, limits=(24, 300, 5000))
    world = World(config)
    admit_all(world, " ".join(f"heavy{number}" for number in range(100)), [0, 1, 0], 4, A)
    for number in range(4):
        for _ in range(5):
            world.step()
        world.admit(f"light{number}", [1, 0], max_tokens=2, tenant=B)
        log, before = world.log_of(f"light{number}"), world.num_admissions
        while not log.token_ids:
            world.step()
        assert log.admission <= before + 2 + (num_seqs - 1)
        assert log.num_steps_waited <= 5


def test_flood_of_labels_leaves_no_trace() -> None:
    world = World(small_config(limits=(24, 300, 5000)))
    for number in range(200):
        world.admit(f"r{number}", [0], max_tokens=1, tenant=Tenant(name=f"label-{number}"))
    world.drain()
    assert world.scheduler.shares.num_tenants == 0
    assert not world.scheduler.waiting._lanes


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_weight_is_refused(weight: float) -> None:
    scheduler = Scheduler(small_config())
    with pytest.raises(InvalidValue, match="weight of the tenant"):
        scheduler.submit(small_request("r", [0], tenant=Tenant(name="a", weight=weight)), 0.0)
    assert scheduler.shares.num_tenants == 0


@pytest.mark.parametrize("seed", range(100, 110))
def test_service_gap_of_tenants_that_always_wait_is_bounded(seed: int) -> None:
    play_backlogged(seed)


@pytest.mark.parametrize("seed", range(100, 110))
def test_old_backlog_of_one_tenant_never_wears_out_another(seed: int) -> None:
    world = play_tenants_under_pressure(seed)
    assert world.scheduler.counters.num_preemptions > 0
    assert max(log.num_preemptions for log in world.logs.values()) <= 2
