"""The attention backend for a CPU: kernels that read the paged cache in place, or torch's SDPA for a chunk."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from batching.attention.reference import AttentionVariant, attend_sequence, causal_mask, gather
from batching.kernels.attention_cpu import decode_attention, decode_attention_serial
from batching.kernels.prefill_cpu import MAX_CONTEXT_LEN, prefill_attention
from batching.kernels.simd_cpu import HAS_MATRIX_UNITS, LANES
from batching.kernels.views import as_array
from batching.kv_cache import LayerCache
from batching.step_input import PrefillRow, StepInput

PARALLEL_MIN_POSITIONS = 512
"""Rows times KV heads times context from which waking the other threads pays (a launch costs about 15 us)."""


def knobs_of(variant: AttentionVariant) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The variant as the kernel reads it: scaling, window or 0, softcap or 0, then the sinks."""
    sinks = [] if variant.sinks is None else variant.sinks.float().tolist()
    return np.array([variant.scaling, variant.sliding_window or 0, variant.softcap or 0.0, *sinks], np.float64)


class CpuBackend:
    """Owner: the runner thread."""

    def __init__(self) -> None:
        self._step: StepInput | None = None

    def begin(self, step: StepInput) -> None:
        self._step = step
        self._block_of = torch.from_numpy(step.block_of.astype(np.int64))
        self._offset_of = torch.from_numpy(step.offset_of.astype(np.int64))
        self._num_positions = int(step.context_lens.sum())

    def forward(
        self, cache: LayerCache, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant
    ) -> torch.Tensor:
        cache.k[self._block_of, :, self._offset_of] = k.transpose(0, 1).to(cache.k.dtype)
        cache.v[self._block_of, :, self._offset_of] = v.transpose(0, 1).to(cache.v.dtype)
        rows = q.transpose(0, 1).contiguous()
        out = rows.new_empty(rows.shape[0], rows.shape[1], cache.v.shape[3])
        self.attend(cache, rows, out, variant, knobs_of(variant))
        return out

    def attend(
        self,
        cache: LayerCache,
        q: torch.Tensor,
        out: torch.Tensor,
        variant: AttentionVariant,
        knobs: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> None:
        """Attention of all rows whose K and V are cached. q `[T, q_heads, dim]` -> out `[T, q_heads, v_dim]`."""
        step = self._step
        assert step is not None  # noqa: S101 (begin was called)
        if step.num_single:
            num_positions = self._num_positions * cache.k.shape[1]
            kernel = decode_attention if num_positions >= PARALLEL_MIN_POSITIONS else decode_attention_serial
            kernel(
                as_array(q[: step.num_single]),
                as_array(cache.k),
                as_array(cache.v),
                step.tables,
                step.context_lens,
                knobs,
                as_array(out[: step.num_single]),
            )
        for chunk in step.prefills:
            rows = slice(chunk.first_row, chunk.first_row + chunk.num_tokens)
            if self._is_for_kernel(cache, chunk):
                arrays = as_array(q[rows]), as_array(cache.k), as_array(cache.v)
                prefill_attention(*arrays, chunk.block_ids, chunk.start, knobs, as_array(out[rows]))
            else:
                out[rows] = attend_chunk(q[rows].transpose(0, 1), cache, chunk, variant)

    def _is_for_kernel(self, cache: LayerCache, chunk: PrefillRow) -> bool:
        """Our kernel takes 0.35 to 0.65 of SDPA's time where it can serve (NOTES.md, 2026-11-21, Zen 4)."""
        has_whole_vectors = cache.k.shape[3] % LANES == 0 and cache.v.shape[3] % LANES == 0
        is_short = chunk.start + chunk.num_tokens <= MAX_CONTEXT_LEN
        return has_whole_vectors and is_short and not (HAS_MATRIX_UNITS and cache.k.dtype is torch.bfloat16)


def attend_chunk(q: torch.Tensor, cache: LayerCache, chunk: PrefillRow, variant: AttentionVariant) -> torch.Tensor:
    """One prefill chunk. q `[q_heads, n, dim]` -> `[n, q_heads, v_dim]`; SDPA where the variant allows it."""
    block_ids = torch.from_numpy(chunk.block_ids)
    context_len = chunk.start + chunk.num_tokens
    if variant.softcap is not None or variant.sinks is not None:
        return attend_sequence(q, cache, block_ids, context_len, variant)
    k = gather(cache.k, block_ids, context_len).to(q.dtype)
    v = gather(cache.v, block_ids, context_len).to(q.dtype)
    window = variant.sliding_window
    is_plain = chunk.start == 0 and (window is None or window >= context_len)
    mask = None if is_plain else causal_mask(chunk.num_tokens, context_len, window, q.device)
    out = functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=mask, is_causal=is_plain, scale=variant.scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)
