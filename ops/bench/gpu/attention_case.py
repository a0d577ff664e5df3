"""Paged attention of one layer at a given batch and context: the tensors, and one call of the kernel that serves it.

Blocks are shuffled as in a cache that has been in use for long. Small caches are made several times, so that no call
finds its keys in the device's own cache.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

from batching.attention.reference import AttentionVariant, attend_sequence
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, num_parts_of
from batching.kernels.triton_support import why_unavailable
from batching.kv_cache import LayerCache, LayerShape, free_memory_bytes
from ops.bench.gpu.floors import attention_bytes
from ops.bench.gpu.model_sizes import ModelSize

BLOCK_SIZE = 16
ENOUGH_BYTES = 512 * 1024**2
"""Of cache, spread over several layers: ten times what a device keeps by itself."""
USABLE_FRACTION = 0.8
"""Of the free memory."""


class CaseShape(msgspec.Struct, frozen=True, kw_only=True):
    """So many sequences of one length; all queries of a prompt, or the last one alone."""

    batch: int
    context_len: int
    is_decode: bool

    @property
    def num_queries(self) -> int:
        """Of each sequence."""
        return 1 if self.is_decode else self.context_len


class AttentionCase:
    """One measured call; `attend(i)` takes the i-th of `num_layers` caches. MemoryError where it does not fit.

    With `is_paged` it goes to Triton's kernels, else to plain torch.
    """

    def __init__(
        self,
        model: ModelSize,
        shape: CaseShape,
        device: torch.device,
        cache_dtype: torch.dtype,
        *,
        is_paged: bool,
    ) -> None:
        self.model, self.shape, self.device = model, shape, device
        layer_bytes = attention_bytes(model, shape.context_len + BLOCK_SIZE, cache_dtype.itemsize) * shape.batch
        self.num_layers = 1 if device.type == "cpu" else max(1, min(model.num_layers, ENOUGH_BYTES // layer_bytes))
        needed, free = layer_bytes * self.num_layers, int(free_memory_bytes(device) * USABLE_FRACTION)
        if needed > free:
            raise MemoryError(f"{needed / 1e9:.0f} GB of keys and values, {free / 1e9:.0f} GB are free")
        dtype = torch.float32 if cache_dtype is torch.float32 else torch.bfloat16
        self._blocks_per_seq = -(-shape.context_len // BLOCK_SIZE)
        num_blocks = shape.batch * self._blocks_per_seq
        layer = LayerShape(num_kv_heads=model.num_kv_heads, k_dim=model.head_dim, v_dim=model.head_dim)
        like = torch.empty(0, dtype=cache_dtype, device=device)
        self._caches = [LayerCache(layer, num_blocks, BLOCK_SIZE, like) for _ in range(self.num_layers)]
        for cache in self._caches:
            _fill(cache.k)
            _fill(cache.v)
        num_rows = shape.batch * shape.num_queries
        self._q = torch.randn(model.num_heads, num_rows, model.head_dim, device=device).to(dtype)
        self._out = torch.zeros(num_rows, model.num_heads, model.head_dim, dtype=dtype, device=device)
        order = torch.from_numpy(np.random.default_rng(0).permutation(num_blocks).astype(np.int32))
        self._tables = order.view(shape.batch, self._blocks_per_seq).to(device)
        self._variant = AttentionVariant(scaling=model.head_dim**-0.5)
        self._paged = self._paged_batch() if is_paged else None

    def attend(self, index: int) -> torch.Tensor:
        """`[rows, heads, dim]`, the same tensor each time."""
        cache = self._caches[index % self.num_layers]
        if self._paged is not None:
            from batching.kernels.paged_attention import attend_paged

            return attend_paged(self._q, cache.k, cache.v, self._paged, self._variant, out=self._out)
        length = self.shape.num_queries
        for sequence, table in enumerate(self._tables.long()):
            rows = slice(sequence * length, (sequence + 1) * length)
            self._out[rows] = attend_sequence(self._q[:, rows], cache, table, self.shape.context_len, self._variant)
        return self._out

    def _paged_batch(self) -> Any:
        from batching.kernels.paged_attention import PagedBatch

        num_queries, batch = self.shape.num_queries, self.shape.batch
        query_lens = np.full(batch, num_queries, np.int32)
        parts = num_parts_of(query_lens, np.full(batch, self.shape.context_len, np.int32))
        is_short = num_queries <= MAX_SHORT_QUERIES
        starts = torch.arange(batch + 1, dtype=torch.int32) * num_queries
        part_starts = torch.from_numpy((np.cumsum(parts) - parts).astype(np.int32))
        return PagedBatch(
            query_starts=starts.to(self.device),
            context_lens=torch.full((batch,), self.shape.context_len, dtype=torch.int32, device=self.device),
            tables=self._tables,
            part_starts=part_starts.to(self.device),
            num_parts=int(parts.sum()),
            max_context_len=self.shape.context_len,
            max_short_queries=num_queries if is_short else 0,
            has_chunks=not is_short,
        )


def has_kernels(device: torch.device) -> bool:
    """Triton's kernels run there."""
    return device.type == "cuda" and why_unavailable() is None


def _fill(cache: torch.Tensor) -> None:
    """Finite numbers of the size of keys and values, without a second copy."""
    if cache.element_size() == 1:
        cache.view(torch.uint8).random_(0, 56)  # 0 to 1 in float8_e4m3fn
    else:
        cache.normal_()
