"""When a child that ended is started again, and when that is given up. Pure."""

from __future__ import annotations

HEALTHY_S = 60.0
"""A child that lived so long starts with a clean record."""
DELAYS_S: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Before the first restart in a row, the second, ...; after the last it is given up."""


class RestartPolicy:
    """Counts the short lives of one child in a row."""

    def __init__(self) -> None:
        self.num_short_lives = 0

    def delay_after(self, lived_s: float) -> float | None:
        """Seconds to wait before the next start; None: give up."""
        if lived_s >= HEALTHY_S:
            self.num_short_lives = 0
        self.num_short_lives += 1
        return DELAYS_S[self.num_short_lives - 1] if self.num_short_lives <= len(DELAYS_S) else None
