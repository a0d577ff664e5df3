"""The test of two samples is exact, and the verdict asks for a control that differs."""

from __future__ import annotations

import itertools
import random

import pytest

from ops.bench.cache_timing import judge_times
from ops.bench.two_samples import smirnov_p_value, smirnov_statistic


def exact_p_value(first: list[float], second: list[float]) -> float:
    """By trying every choice of as many figures as the first has."""
    figures = [*first, *second]
    distance = smirnov_statistic(first, second)
    choices = list(itertools.combinations(range(len(figures)), len(first)))
    as_far = 0
    for choice in choices:
        chosen = [figures[index] for index in choice]
        others = [figures[index] for index in range(len(figures)) if index not in choice]
        as_far += smirnov_statistic(chosen, others) >= distance - 1e-12
    return as_far / len(choices)


@pytest.mark.parametrize(("num_first", "num_second"), [(1, 1), (3, 3), (5, 5), (4, 6), (7, 3), (2, 9)])
@pytest.mark.parametrize("seed", range(5))
def test_p_value_is_the_share_of_all_orders(num_first: int, num_second: int, seed: int) -> None:
    rng = random.Random(seed)
    first = [rng.random() for _ in range(num_first)]
    second = [rng.random() + 0.3 for _ in range(num_second)]
    assert smirnov_p_value(first, second) == pytest.approx(exact_p_value(first, second), abs=1e-12)


def test_known_critical_value() -> None:
    """Tables: for 10 and 10, a distance of 0.7 has p = 0.0123, of 0.8 p = 0.0021."""
    assert smirnov_p_value(list(range(10)), [value + 6.5 for value in range(10)]) == pytest.approx(0.0123, abs=1e-4)
    assert smirnov_p_value(list(range(10)), [value + 7.5 for value in range(10)]) == pytest.approx(0.0021, abs=1e-4)


def test_p_value_is_evenly_spread_where_nothing_differs() -> None:
    rng = random.Random(1)
    p_values = [
        smirnov_p_value([rng.random() for _ in range(40)], [rng.random() for _ in range(40)]) for _ in range(200)
    ]
    assert 0 <= sum(p_value < 0.05 for p_value in p_values) <= 20


@pytest.mark.parametrize(
    ("other_ms", "again_ms", "verdict"),
    [(50.0, 10.0, [True, True]), (10.0, 10.0, [False, True]), (50.0, 50.0, [True, False])],
    ids=["isolated", "shared", "nothing_is_shown"],
)
def test_verdict(other_ms: float, again_ms: float, verdict: list[bool]) -> None:
    rng = random.Random(2)
    around = {"cold": 50.0, "other": other_ms, "again": again_ms}
    times_s = {kind: [rng.gauss(mean, 3.0) / 1000 for _ in range(60)] for kind, mean in around.items()}
    assert [check.is_ok for check in judge_times(times_s)] == verdict
