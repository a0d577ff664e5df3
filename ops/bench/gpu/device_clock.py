"""How long a call takes on a device: events around replays of a captured graph on CUDA, a plain clock elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

NUM_GROUPS = 5
"""Measurements, of which the median counts."""
GROUP_S = 0.04
MAX_REPEATS = 1000

Call = Callable[[int], object]
"""Given a number that counts up, so that it may take other memory each time."""


def seconds_of(call: Call, device: torch.device, *, num_variants: int = 1) -> float:
    """Median seconds of one call, the launch from the host left out where the device can replay it."""
    for index in range(max(2, num_variants)):
        call(index)
    if device.type != "cuda":
        return _median_s(lambda: _run_all(call, num_variants), _plain_clock) / num_variants
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            _run_all(call, num_variants)
    except RuntimeError as error:
        print(f"  not captured, so launches from the host are in it: {str(error).splitlines()[0]}", flush=True)
        torch.cuda.synchronize(device)
        return _median_s(lambda: _run_all(call, num_variants), _device_clock) / num_variants
    return _median_s(graph.replay, _device_clock) / num_variants


def _run_all(call: Call, num_variants: int) -> None:
    for index in range(num_variants):
        call(index)


def _median_s(once: Callable[[], object], clock: Callable[[Callable[[], object], int], float]) -> float:
    first_s = clock(once, 1)
    repeats = max(1, min(MAX_REPEATS, int(GROUP_S / max(first_s, 1e-7))))
    return statistics.median(clock(once, repeats) for _ in range(NUM_GROUPS))


def _plain_clock(once: Callable[[], object], repeats: int) -> float:
    began_s = time.perf_counter()
    for _ in range(repeats):
        once()
    return (time.perf_counter() - began_s) / repeats


def _device_clock(once: Callable[[], object], repeats: int) -> float:
    began = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    began.record()
    for _ in range(repeats):
        once()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / repeats


def name_of(device: torch.device) -> str:
    """For the heading."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
