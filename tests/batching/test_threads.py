"""The number of threads that was asked for holds for torch and for our own kernels."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import torch

from batching.threads import SMALL_WEIGHT_BYTES, default_num_threads, use_threads


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """A thread of its own: both numbers belong to the thread that sets them."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("num_threads", [1, min(2, numba.config.NUMBA_NUM_THREADS)])
def test_both_libraries_use_what_was_asked_for(thread: ThreadPoolExecutor, num_threads: int) -> None:
    thread.submit(use_threads, num_threads).result()
    assert thread.submit(torch.get_num_threads).result() == num_threads
    assert thread.submit(numba.get_num_threads).result() == num_threads


def test_more_threads_than_numba_has_are_no_error(thread: ThreadPoolExecutor) -> None:
    thread.submit(use_threads, numba.config.NUMBA_NUM_THREADS + 1).result()
    assert thread.submit(numba.get_num_threads).result() == numba.config.NUMBA_NUM_THREADS


def test_tiny_model_leaves_a_core_to_the_http_side() -> None:
    assert [default_num_threads(SMALL_WEIGHT_BYTES - 1, cores) for cores in (1, 2, 8)] == [1, 1, 7]
    assert [default_num_threads(SMALL_WEIGHT_BYTES, cores) for cores in (1, 2, 8)] == [1, 2, 8]
