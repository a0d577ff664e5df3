"""Every history of nine calls on four blocks and three requests: small bugs have small examples."""

from __future__ import annotations

import msgspec
import pytest

from contracts.generation import GenerationRequest, Tenant
from tests.batching.core_search import Reached, SmallWorld, search
from tests.batching.core_world import small_config, small_request

DEPTH = 9
EQUAL = [
    small_request("a", [0, 1], max_tokens=2, ignore_eos=True),
    small_request("b", [0, 1], max_tokens=2),
    small_request("c", [0, 1], max_tokens=2, ignore_eos=True),
]
NESTED = [
    small_request("a", [0, 1, 0], max_tokens=1, ignore_eos=True),
    small_request("b", [0, 1], max_tokens=2, ignore_eos=True),
    small_request("c", [0], max_tokens=3, ignore_eos=True),
]
SAMPLES = [
    small_request("a", [0, 0], num_samples=2, max_tokens=2, ignore_eos=True),
    small_request("b", [0, 0], cache_salt="other", max_tokens=2, ignore_eos=True),
    small_request("c", [1], max_tokens=2, priority=-1),
]
TENANTS = [
    small_request("a", [0, 1], max_tokens=2, ignore_eos=True),
    small_request("b", [0], max_tokens=2, ignore_eos=True),
    small_request("c", [0, 1, 0], max_tokens=1, tenant=Tenant(name="other", weight=2.0)),
]


def explore(
    requests: list[GenerationRequest],
    *,
    num_blocks: int,
    block_size: int,
    enable_prefix_caching: bool,
    depth: int,
    max_steps_in_flight: int = 1,
) -> Reached:
    config = small_config(
        num_blocks=num_blocks,
        block_size=block_size,
        max_num_batched_tokens=4,
        max_prefill_tokens_while_decoding=2,
        enable_prefix_caching=enable_prefix_caching,
        max_steps_in_flight=max_steps_in_flight,
    )
    world = SmallWorld(msgspec.structs.replace(config, vocab_size=2, eos_token_ids=frozenset({1})))
    world.upcoming = requests.copy()
    return search(world, depth)


@pytest.mark.parametrize("requests", [EQUAL, NESTED, SAMPLES], ids=["equal", "nested", "samples"])
@pytest.mark.parametrize("enable_prefix_caching", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize(
    ("num_blocks", "block_size"),
    [(4, 1), pytest.param(4, 2, marks=pytest.mark.slow), pytest.param(3, 2, marks=pytest.mark.slow)],
)
def test_every_history_keeps_all_invariants(
    requests: list[GenerationRequest], num_blocks: int, block_size: int, enable_prefix_caching: bool
) -> None:
    reached = explore(
        requests,
        num_blocks=num_blocks,
        block_size=block_size,
        enable_prefix_caching=enable_prefix_caching,
        depth=DEPTH,
    )
    assert reached.num_states > 300


def test_every_history_of_two_tenants_keeps_all_invariants() -> None:
    reached = explore(TENANTS, num_blocks=4, block_size=1, enable_prefix_caching=True, depth=DEPTH)
    assert reached.num_states > 300


def test_every_history_with_too_little_memory_keeps_all_invariants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallWorld, "can_run_out_of_memory", True)
    reached = explore(NESTED, num_blocks=4, block_size=1, enable_prefix_caching=True, depth=DEPTH - 1)
    assert reached.num_states > 300


def test_the_scope_is_large_enough_for_preemption_and_cache_hits() -> None:
    reached = explore(NESTED, num_blocks=4, block_size=1, enable_prefix_caching=True, depth=DEPTH)
    assert reached.num_preemptions > 0
    assert reached.num_cached_tokens > 0


@pytest.mark.parametrize(
    "requests", [EQUAL, NESTED, pytest.param(SAMPLES, marks=pytest.mark.slow)], ids=["equal", "nested", "samples"]
)
def test_every_history_with_a_step_ahead_keeps_all_invariants(requests: list[GenerationRequest]) -> None:
    reached = explore(
        requests, num_blocks=4, block_size=1, enable_prefix_caching=True, depth=DEPTH, max_steps_in_flight=2
    )
    assert reached.num_states > 300
