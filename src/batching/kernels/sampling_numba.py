"""Sampling on a CPU: runs the numba functions of `sampling_cpu` over a batch, with their scratch memory and threads.

Importing this module needs numba, so `batching.sampler` imports it only when it builds a Sampler on a CPU. Tested
against `sampling_torch`, which it must equal.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from batching.kernels.sampling_cpu import CHUNK, choose_rows, logprob_rows
from batching.kernels.sampling_torch import TorchSampling
from batching.sampling_options import RowOptions

ELEMENTS_PER_THREAD = 1 << 18
"""Logits in a batch for each further thread: with fewer, waking it (some 50 us) costs more than it saves."""

Array = npt.NDArray[Any]


class NumbaSampling(TorchSampling):
    """Holds one scratch per thread; every method may be called from the runner thread only.

    Large batches are spread over the calling thread and `num_threads - 1` of its own, which sleep in between: numba's
    and torch's OpenMP threads would spin on the cores that the HTTP side needs. `argmax` stays torch's: it reads each
    logit once, without a copy, at memory speed.
    """

    def __init__(self, vocab_size: int, num_threads: int) -> None:
        self._num_threads = num_threads
        padded_len = -(-vocab_size // CHUNK) * CHUNK
        self._scratch = _allocate_scratch(num_threads, padded_len)
        self._threads = ThreadPoolExecutor(max(1, num_threads - 1), thread_name_prefix="sampling")

    def compile(self) -> None:
        """Compile the kernel, or load it from the cache on disk, so that no request waits for it."""
        logits = torch.zeros((1, 1))
        zero, one = np.zeros(1), np.ones(1)
        number = np.zeros(1, dtype=np.int64)
        self.choose(logits, RowOptions(number, one, number, one, zero, np.zeros((1, 2), dtype=np.uint32)))
        self.logprobs(logits, [0], 1)

    def choose(self, logits: torch.Tensor, options: RowOptions) -> tuple[list[int], list[bool]]:
        if options.is_all_greedy:
            return super().choose(logits, options)
        num_rows = len(options.rows)
        results = np.zeros(num_rows, dtype=np.int64), np.zeros(num_rows, dtype=np.bool_)
        arrays = (
            options.rows,
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
            options.keys,
        )
        self._run(choose_rows, logits, arrays, results)
        return results[0].tolist(), results[1].tolist()

    def logprobs(
        self, logits: torch.Tensor, token_ids: list[int], num_top: int
    ) -> tuple[list[float], list[list[int]], list[list[float]]]:
        num_rows, num_top = len(token_ids), min(num_top, logits.shape[1])
        results = (
            np.empty(num_rows, dtype=np.float64),
            np.empty((num_rows, num_top), dtype=np.int64),
            np.empty((num_rows, num_top), dtype=np.float64),
        )
        self._run(logprob_rows, logits, np.array(token_ids, dtype=np.int64), results)
        return results[0].tolist(), results[1].tolist(), results[2].tolist()

    def _run(self, kernel: Callable[..., None], logits: torch.Tensor, options: Any, results: tuple[Array, ...]) -> None:
        """Run `kernel` over all rows, thread w taking rows w, w + num_threads, ... with its own scratch."""
        num_rows = results[0].shape[0]
        num_threads = min(self._num_threads, num_rows * logits.shape[1] // ELEMENTS_PER_THREAD + 1, num_rows)
        arguments = (*_as_arrays(logits), options, self._scratch, results)
        others = [
            self._threads.submit(partial(kernel, *arguments, worker, num_threads)) for worker in range(1, num_threads)
        ]
        kernel(*arguments, 0, num_threads)
        for other in others:
            other.result()


def _allocate_scratch(num_threads: int, padded_len: int) -> tuple[Array, ...]:
    """Per thread: keys int32, float bits int32, weights float32, sort buffer int64, chunk maxima int32."""
    shape = (num_threads, padded_len)
    return (
        np.empty(shape, dtype=np.int32),
        np.empty(shape, dtype=np.int32),
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.int64),
        np.empty((num_threads, padded_len // CHUNK), dtype=np.int32),
    )


def _as_arrays(logits: torch.Tensor) -> tuple[Array, Array]:
    """The logits' memory as (float32 bits as int32, empty) or (empty, bfloat16 bits as int16): one compiled variant."""
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    if logits.dtype == torch.bfloat16:
        return np.empty((0, 0), dtype=np.int32), logits.view(torch.int16).numpy()
    return logits.float().view(torch.int32).numpy(), np.empty((0, 0), dtype=np.int16)
