"""The attention backend for CUDA: one upload for each step, then kernels that follow the block tables on the device."""

from __future__ import annotations

import numpy as np
import torch
from triton.errors import TritonError

from batching.attention.reference import AttentionVariant, write_rows
from batching.kernels.paged_attention import PagedBatch, attend_paged
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, IntArray, num_parts_of
from batching.kv_cache import LayerCache
from batching.step_input import StepInput

ALIGNED = 32
"""Each array of an upload begins at a multiple of 128 bytes: Triton compiles a kernel anew for another alignment."""


class TritonBackend:
    """Owner: the runner thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self, step: StepInput) -> None:
        """Upload where the rows of the step stand; nothing else is sent before its layers are done."""
        self._batch, block_of, offset_of = upload_step(step, self._device)
        self._block_of = block_of.long()
        self._offset_of = offset_of.long()

    def forward(
        self, cache: LayerCache, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant
    ) -> torch.Tensor:
        write_rows(cache.k, k, self._block_of, self._offset_of, cache.k_scale)
        write_rows(cache.v, v, self._block_of, self._offset_of, cache.v_scale)
        rows = q if q.stride(2) == 1 else q.contiguous()
        out = q.new_empty(q.shape[1], q.shape[0], cache.v.shape[3])
        scales = cache.k_scale, cache.v_scale
        try:
            return attend_paged(rows, cache.k, cache.v, self._batch, variant, out=out, scales=scales)
        except TritonError as error:
            raise RuntimeError(f"the attention kernels cannot run on {self._device}: {error}") from error


def upload_step(step: StepInput, device: torch.device) -> tuple[PagedBatch, torch.Tensor, torch.Tensor]:
    """The step as the kernels read it, and the block and offset `[T] int32` of each new token, in one copy."""
    num_singles = step.num_single
    query_lens = np.array([1] * num_singles + [chunk.num_tokens for chunk in step.prefills], np.int32)
    chunk_lens = [chunk.start + chunk.num_tokens for chunk in step.prefills]
    context_lens = np.concatenate([step.context_lens, np.array(chunk_lens, np.int32)])
    parts = num_parts_of(query_lens, context_lens)
    starts = np.concatenate([[0], np.cumsum(query_lens)])
    tables = _all_tables(step)
    arrays = [starts, context_lens, np.cumsum(parts) - parts, step.block_of, step.offset_of, tables.reshape(-1)]
    query_starts, lens, part_starts, block_of, offset_of, blocks = upload(arrays, device)
    short = query_lens[query_lens <= MAX_SHORT_QUERIES]
    batch = PagedBatch(
        query_starts=query_starts,
        context_lens=lens,
        tables=blocks.view(tables.shape),
        part_starts=part_starts,
        num_parts=int(parts.sum()),
        max_context_len=int(context_lens.max()),
        max_short_queries=int(short.max(initial=0)),
        has_chunks=len(short) < len(query_lens),
    )
    return batch, block_of, offset_of


def _all_tables(step: StepInput) -> IntArray:
    """`[sequences, max_blocks] int32`: single-token rows, then chunks; entries behind a context are 0."""
    num_singles, width = step.tables.shape
    width = max([width, *(len(chunk.block_ids) for chunk in step.prefills)])
    tables: IntArray = np.zeros((num_singles + len(step.prefills), width), np.int32)
    tables[:num_singles, : step.tables.shape[1]] = step.tables
    for row, chunk in enumerate(step.prefills, num_singles):
        tables[row, : len(chunk.block_ids)] = chunk.block_ids
    return tables


def upload(arrays: list[IntArray], device: torch.device) -> list[torch.Tensor]:
    """One-dimensional arrays as int32 views of one tensor on the device; the copy is not waited for."""
    sizes = [-(-len(array) // ALIGNED) * ALIGNED for array in arrays]
    packed = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
    room = packed.numpy()
    begin = 0
    for array, size in zip(arrays, sizes, strict=True):
        room[begin : begin + len(array)] = array
        begin += size
    views = torch.split(packed.to(device, non_blocking=True), sizes)
    return [view[: len(array)] for view, array in zip(views, arrays, strict=True)]
