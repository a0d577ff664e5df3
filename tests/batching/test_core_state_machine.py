"""Random histories of the pure core: after every call all invariants hold, every output is the solo oracle's."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batching.scheduler_config import SchedulerConfig
from tests.batching.core_battery import TENANTS, play_all_under_pressure
from tests.batching.core_tenant_battery import play_backlogged, play_tenants_under_pressure
from tests.batching.core_world import World, small_config, small_request

REQUEST_IDS = [f"r{number}" for number in range(12)]


@st.composite
def configs(draw: st.DrawFn) -> SchedulerConfig:
    return small_config(
        num_blocks=draw(st.integers(4, 12)),
        block_size=draw(st.integers(1, 4)),
        max_num_seqs=draw(st.integers(1, 4)),
        max_num_batched_tokens=draw(st.integers(1, 16)),
        max_prefill_tokens_while_decoding=draw(st.integers(1, 8)),
        enable_prefix_caching=draw(st.booleans()),
        limits=(draw(st.integers(8, 24)), draw(st.integers(3, 12)), draw(st.integers(8, 60))),
        max_steps_in_flight=draw(st.integers(1, 2)),
        num_draft_tokens=draw(st.sampled_from([0, 0, 1, 2, 3])),
    )


class CoreMachine(RuleBasedStateMachine):
    """Drives a World; a step may be left in flight while requests come and go."""

    @initialize(config=configs())
    def start(self, config: SchedulerConfig) -> None:
        self.world = World(config)

    @rule(
        request_id=st.sampled_from(REQUEST_IDS),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        salt=st.sampled_from(["", "a"]),
        n=st.sampled_from([1, 1, 1, 2, 3]),
        max_tokens=st.integers(1, 10),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        timeout_s=st.sampled_from([None, None, None, 1.0, 3.0]),
        ends=st.sampled_from([(False, ()), (True, ()), (True, ()), (True, (2,))]),
        penalty=st.sampled_from([0.0, 0.0, 1.0]),
        tenant=st.sampled_from(TENANTS),
    )
    def submit(
        self,
        request_id: str,
        prompt: list[int],
        salt: str,
        n: int,
        ends: tuple[bool, tuple[int, ...]],
        penalty: float,
        **options: object,
    ) -> None:
        request = small_request(
            request_id,
            prompt,
            cache_salt=salt,
            num_samples=n,
            ignore_eos=ends[0],
            stop_token_ids=ends[1],
            presence_penalty=penalty,
            **options,
        )
        self.world.submit(request)

    @rule(
        request_ids=st.lists(st.sampled_from(REQUEST_IDS), min_size=2, max_size=5, unique=True),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=4),
        max_tokens=st.integers(4, 14),
        seed=st.integers(0, 3),
        tenant=st.sampled_from(TENANTS),
    )
    def submit_what_needs_more_blocks_than_there_are(
        self, request_ids: list[str], prompt: list[int], **options: object
    ) -> None:
        for request_id in request_ids:
            self.world.submit(small_request(request_id, prompt, ignore_eos=True, **options))

    @precondition(lambda self: not self.world.plans)
    @rule()
    def step(self) -> None:
        self.world.step()

    @precondition(lambda self: not self.world.plans)
    @rule(count=st.integers(2, 12))
    def several_steps(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @precondition(lambda self: self.world.may_begin)
    @rule()
    def schedule(self) -> None:
        self.world.begin_step()

    @precondition(lambda self: self.world.plans)
    @rule(broken=st.sampled_from([(), (), (0,), (1,), (0, 1)]), is_out_of_memory=st.sampled_from([False, False, True]))
    def commit(self, broken: tuple[int, ...], is_out_of_memory: bool) -> None:
        self.world.finish_step(frozenset(broken), is_out_of_memory=is_out_of_memory)

    @precondition(lambda self: self.world.plans)
    @rule()
    def fail_step(self) -> None:
        self.world.fail_step()

    @rule(request_id=st.sampled_from(REQUEST_IDS))
    def abort(self, request_id: str) -> None:
        self.world.abort(request_id)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: not self.world.plans)
    @rule()
    def empty_the_cache(self) -> None:
        self.world.forget_all()

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @invariant()
    def invariants_hold(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.drain()


BOUNDED = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_random_histories_keep_all_invariants() -> None:
    run_state_machine_as_test(CoreMachine, settings=BOUNDED)


@pytest.mark.slow
def test_many_new_random_histories_keep_all_invariants() -> None:
    deep = settings(BOUNDED, max_examples=2000, stateful_step_count=100, derandomize=False, print_blob=True)
    run_state_machine_as_test(CoreMachine, settings=deep)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 10_000, 500))
def test_crowded_pools_never_stand_still(first_seed: int) -> None:
    """R12, R33: 10^4 workloads on a pool of one or two requests; a few hundred in test_scheduler_progress."""
    assert play_all_under_pressure(range(first_seed, first_seed + 500)) > 500


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 2000, 200))
def test_tenants_in_crowded_pools_keep_all_invariants(first_seed: int) -> None:
    seeds = range(first_seed, first_seed + 200)
    worlds = [play_tenants_under_pressure(seed) for seed in seeds]
    assert sum(world.scheduler.counters.num_preemptions for world in worlds) > 1000
    for seed in seeds[:100]:
        play_backlogged(seed)
