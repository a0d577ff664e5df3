"""Cores and memory that a container allows, read from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batching import machine

GIB = 1024**3


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("100000 100000", 1), ("50000 100000", 1), ("250000 100000", 2), ("max 100000", 8), ("", 8), ("900000 100000", 8)],
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")
    assert machine.num_cores(tmp_path) == cores


def test_cores_without_any_limit_are_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    assert machine.num_cores(tmp_path / "absent") == 2


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        (str(4 * GIB), str(GIB), 0, 3 * GIB),
        (str(4 * GIB), str(3 * GIB), 2 * GIB, 3 * GIB),
        (str(GIB), str(2 * GIB), 0, 0),
        ("max", str(GIB), 0, 10 * GIB),
        ("", "", 0, 10 * GIB),
    ],
)
def test_free_memory_is_what_machine_and_container_both_have(
    tmp_path: Path, limit: str, used: str, cached: int, free: int
) -> None:
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {10 * GIB // 1024} kB\n")
    assert machine.free_bytes(tmp_path, meminfo) == free


def test_free_memory_that_nobody_knows_is_a_cautious_guess(tmp_path: Path) -> None:
    assert machine.free_bytes(tmp_path, tmp_path / "absent") == machine.UNKNOWN_FREE_BYTES
