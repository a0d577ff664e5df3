"""What crosses between host and device in a step, each way through one of two pinned buffers in turn.

A buffer is written again when the step after the next one is launched, and by then its own step has been collected.
On a CPU the same happens in plain memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from batching.kernels.sampler_buffers import MAX_TOP_LOGPROBS, SamplerBuffers
from batching.row_book import RowPlan
from batching.row_tables import NO_WORD

MIN_DIFFERENCES = 64
"""Differences travel in sizes that are powers of two, at least this one."""


def host_tensor(*shape: int, like: torch.device, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Memory of the host that a device can copy from and to without waiting."""
    return torch.zeros(shape, dtype=dtype, pin_memory=like.type == "cuda")


class Upload:
    """One of the two buffers of plans and differences. Owner: the runner thread."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        self._device = device
        self._plan = host_tensor(2 * max_rows, like=device)
        self._differences = host_tensor(2 * MIN_DIFFERENCES, like=device)

    def send_plan(self, row_plan: RowPlan, target: torch.Tensor) -> None:
        """Rows and counts to `target [2, R] int32` on the device, padded with rows that compute nothing."""
        num_rows, num_used = target.shape[1], len(row_plan.rows)
        plan: npt.NDArray[np.int32] = self._plan[: 2 * num_rows].numpy()
        plan.fill(0)
        plan[:num_used] = row_plan.rows
        plan[num_rows : num_rows + num_used] = row_plan.counts
        target.view(-1).copy_(self._plan[: 2 * num_rows], non_blocking=True)

    def send_differences(self, row_plan: RowPlan) -> torch.Tensor | None:
        """`[2, capacity] int32` on the device; None where nothing changed."""
        writes = row_plan.writes
        if not len(writes):
            return None
        capacity = max(MIN_DIFFERENCES, 1 << (len(writes) - 1).bit_length())
        if self._differences.shape[0] < 2 * capacity:
            self._differences = host_tensor(2 * capacity, like=self._device)
        packed = self._differences[: 2 * capacity].view(2, capacity)
        array: npt.NDArray[np.int32] = packed.numpy()
        array[0, len(writes) :] = NO_WORD
        array[0, : len(writes)] = writes.words()
        array[1, : len(writes)] = writes.values()
        return packed.to(self._device, non_blocking=True)


class Results:
    """One of the two buffers of what was sampled. Owner: the runner thread."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        self._tokens = host_tensor(2, max_rows, like=device)
        self._num_sampling = host_tensor(1, like=device)
        self._logprobs = host_tensor(max_rows, like=device, dtype=torch.float32)
        self._top_ids = host_tensor(max_rows, MAX_TOP_LOGPROBS, like=device)
        self._top_logprobs = host_tensor(max_rows, MAX_TOP_LOGPROBS, like=device, dtype=torch.float32)
        self._copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def receive(self, buffers: SamplerBuffers, num_sampling: torch.Tensor, *, has_logprobs: bool) -> None:
        """Have the results copied once they are there; does not wait."""
        self._tokens.copy_(buffers.results, non_blocking=True)
        self._num_sampling.copy_(num_sampling, non_blocking=True)
        if has_logprobs:
            self._logprobs.copy_(buffers.logprobs, non_blocking=True)
            self._top_ids.copy_(buffers.top_ids, non_blocking=True)
            self._top_logprobs.copy_(buffers.top_logprobs, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def wait(self) -> tuple[list[int], list[int], int]:
        """(token ids, status of each row, how many of them sampled), once they are on the host."""
        if self._copied is not None:
            self._copied.synchronize()
        token_ids, status = self._tokens.tolist()
        return token_ids, status, int(self._num_sampling)

    def logprobs(self, index: int, num_top: int) -> tuple[float, list[tuple[int, float]]]:
        """Of the chosen token and of the `num_top` most probable ones of a row, without those of probability 0."""
        ids = self._top_ids[index, :num_top].tolist()
        numbers = self._top_logprobs[index, :num_top].tolist()
        top = [pair for pair in zip(ids, numbers, strict=True) if pair[1] != float("-inf")]
        return float(self._logprobs[index]), top
