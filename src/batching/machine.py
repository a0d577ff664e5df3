"""What this process may use of the machine: cores and memory, within the limits of a container."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where version 2 of Linux's control groups shows a container its own limits."""
UNKNOWN_FREE_BYTES = 4 * 1024**3
"""Assumed where nobody says how much memory is free."""


def num_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may keep busy, at least 1: its affinity, and its container's share of time."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        return max(1, min(allowed, int(quota) // int(period)))
    return allowed


def free_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that a new allocation can get now without others being pushed out."""
    lines = (line.split() for line in _read(meminfo).splitlines())
    known = [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        stat = dict(line.split() for line in _read(cgroup / "memory.stat").splitlines())
        reclaimable = int(stat.get("inactive_file", 0))
        known.append(max(0, int(limit) - int(used) + reclaimable))
    return min(known, default=UNKNOWN_FREE_BYTES)


def _read(path: Path) -> str:
    """The text of a file of the kernel's; empty where there is none."""
    try:
        return path.read_text("ascii")
    except OSError:
        return ""
