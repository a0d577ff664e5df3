"""A child is started again at once, then after growing pauses, then no more; a long life clears its record."""

from __future__ import annotations

from itertools import pairwise

from service.restart_policy import DELAYS_S, HEALTHY_S, RestartPolicy

GIVE_UP_WITHIN_S = 60.0


def test_first_restart_is_immediate_and_pauses_grow() -> None:
    policy = RestartPolicy()
    delays = [policy.delay_after(1.0) for _ in DELAYS_S]
    assert delays == list(DELAYS_S)
    assert delays[0] == 0.0
    assert all(later > earlier for earlier, later in pairwise(DELAYS_S))


def test_crash_loop_is_given_up_in_bounded_time_and_for_good() -> None:
    policy = RestartPolicy()
    for _ in DELAYS_S:
        policy.delay_after(0.1)
    assert policy.delay_after(0.1) is None
    assert policy.delay_after(0.1) is None
    assert sum(DELAYS_S) < GIVE_UP_WITHIN_S


def test_long_life_clears_the_record() -> None:
    policy = RestartPolicy()
    for _ in DELAYS_S:
        policy.delay_after(HEALTHY_S - 0.1)
    assert policy.delay_after(HEALTHY_S) == DELAYS_S[0]
    assert policy.delay_after(1.0) == DELAYS_S[1]


def test_healthy_child_may_end_any_number_of_times() -> None:
    policy = RestartPolicy()
    assert {policy.delay_after(HEALTHY_S) for _ in range(100)} == {DELAYS_S[0]}
