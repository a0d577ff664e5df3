"""The two-sample test of Kolmogorov and Smirnov: could two sets of figures be of one distribution? Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def smirnov_statistic(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest distance of the two empirical distribution functions; 0 to 1."""
    left, right = sorted(first), sorted(second)
    values = {*left, *right}
    return max(abs(bisect_right(left, value) / len(left) - bisect_right(right, value) / len(right)) for value in values)


def smirnov_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """How probable so large a distance is when all figures are of one continuous distribution; exact.

    Every order of the figures is then as probable as any other, and an order is a path from (0, 0) to (m, n). Walks
    all paths at once and sums those that never come as far apart (Hodges 1958). Ties make the result too large.
    """
    num_first, num_second = len(first), len(second)
    distance = smirnov_statistic(first, second)
    too_far = round(distance * num_first * num_second)  # in units of 1 / (m n), in which distances are whole

    def is_near(taken: int, other: int) -> bool:
        return abs(taken * num_second - other * num_first) < too_far

    # inside[j]: probability of being at (i, j) without ever having been too far.
    inside = [0.0] * (num_second + 1)
    for taken in range(num_first + 1):
        for other in range(num_second + 1):
            if not is_near(taken, other):
                inside[other] = 0.0
            elif taken == other == 0:
                inside[other] = 1.0
            else:
                left = num_first + num_second - taken - other + 1
                from_first = inside[other] * (num_first - taken + 1) / left if taken else 0.0
                from_second = inside[other - 1] * (num_second - other + 1) / left if other else 0.0
                inside[other] = from_first + from_second
    return 1.0 if too_far == 0 else max(0.0, 1.0 - inside[num_second])
