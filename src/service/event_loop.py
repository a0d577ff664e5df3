"""How every process of Quire runs its event loop and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 5_000
"""Made and not yet freed, from which on they are looked through."""


def run_event_loop(main: Coroutine[object, object, None]) -> None:
    """Run to completion on uvloop where it is installed, else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect nothing while modules are imported and a model is built; what they made is never looked at again.

    Importing torch and transformers and building the embedded model took 3.3 instead of 4.3 s of CPU time, and later
    collections have a million objects less to visit (2 cores, November 2026).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_collections_short(*, are_full_ones_wanted: bool = True) -> None:
    """Look never again at what exists now, and less often at the rest.

    A full collection of a worker's 80,000 objects stops its event loop for 17 to 35 ms, those of what requests leave
    for less than one (2 cores, November 2026). Without full ones, for a process that lives for minutes, cycles that
    grow old are kept.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10 if are_full_ones_wanted else 1_000_000)


def leave_now(status: int) -> None:
    """End the process with what was printed, without waiting for threads or tearing modules down.

    A model half loaded cannot be interrupted in any other way, and the teardown of torch and numba after the last
    request takes seconds (2-4 s on two busy cores, November 2026).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
