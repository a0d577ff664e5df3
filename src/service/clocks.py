"""From the machine's monotonic clock, which engine and workers share, to the time of day."""

from __future__ import annotations

import time


def unix_offset_ns() -> int:
    """Nanoseconds that, added to a monotonic time, give Unix time; as it is now."""
    return time.time_ns() - time.monotonic_ns()


def unix_ms() -> int:
    """Unix time in milliseconds: a date to be kept, never a duration."""
    return time.time_ns() // 1_000_000
