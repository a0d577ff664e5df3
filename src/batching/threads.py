"""How many CPU threads the model's work may use, for torch and for our own kernels alike. Knows nothing of queues."""

from __future__ import annotations

import torch

from batching.machine import num_cores

SMALL_WEIGHT_BYTES = 64 * 1024**2
"""Below this, making and sending text costs about as much as the model does: a core is left to it.

Every parallel product waits for its slowest thread, so that a core which the HTTP side also wants costs more than it
gives. Embedded model (12 MB), 2 cores, 128 streams beside a load generator: 141 requests/s with one thread, 113 with
two (2026-11-21, Xeon with AMX)."""


def default_num_threads(weight_bytes: int, cores: int | None = None) -> int:
    """Threads for a model of that size where the settings say 0."""
    available = num_cores() if cores is None else cores
    return available if weight_bytes >= SMALL_WEIGHT_BYTES else max(1, available - 1)


def use_threads(num_threads: int) -> None:
    """Use so many threads from here on; both libraries keep the number for the calling thread only."""
    torch.set_num_threads(num_threads)
    try:
        import numba
    except ImportError:  # its kernels are not used then
        return
    numba.set_num_threads(min(num_threads, numba.config.NUMBA_NUM_THREADS))
