"""Paged attention in plain torch: slow, any device, every variant. The other backends are tested against it."""

from __future__ import annotations

import msgspec
import torch

from batching.kv_cache import LayerCache, bytes_or_numbers


class AttentionVariant(msgspec.Struct, frozen=True, kw_only=True):
    """What a family passes to its attention function beside q, k and v."""

    scaling: float
    sliding_window: int | None = None
    """A position attends to the last `sliding_window` positions, itself included."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap) (Gemma 2)."""
    sinks: torch.Tensor | None = None
    """`[q_heads]`: a score per head that takes probability and gives no value (GPT-OSS)."""


def gather(cache: torch.Tensor, block_ids: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """The first `num_tokens` positions of one sequence as `[kv_heads, num_tokens, dim]`, from whole blocks."""
    blocks = bytes_or_numbers(cache)[block_ids].view(cache.dtype)  # [n, kv_heads, block_size, dim]
    return blocks.transpose(0, 1).reshape(cache.shape[1], -1, cache.shape[3])[:, :num_tokens]


def write_rows(
    stored: torch.Tensor, new: torch.Tensor, block_of: torch.Tensor, offset_of: torch.Tensor, scale: float
) -> None:
    """New keys or values `[kv_heads, T, dim]` to their slots; float8 in units of `scale`, cut off at its largest."""
    rows = new.transpose(0, 1)
    if stored.dtype.itemsize == 1:
        largest = torch.finfo(stored.dtype).max
        rows = (rows.float() / scale).clamp(-largest, largest)
    bytes_or_numbers(stored)[block_of, :, offset_of] = bytes_or_numbers(rows.to(stored.dtype))


def causal_mask(num_queries: int, context_len: int, window: int | None, device: torch.device) -> torch.Tensor:
    """`[num_queries, context_len] bool`: True where a query, at the end of the context, may look."""
    query = torch.arange(context_len - num_queries, context_len, device=device)[:, None]
    key = torch.arange(context_len, device=device)[None, :]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


def attend_sequence(
    q: torch.Tensor, cache: LayerCache, block_ids: torch.Tensor, context_len: int, variant: AttentionVariant
) -> torch.Tensor:
    """Attention of the last positions of one sequence. q `[q_heads, n, dim]` -> `[n, q_heads, v_dim]`."""
    k = gather(cache.k, block_ids, context_len).float() * cache.k_scale
    v = gather(cache.v, block_ids, context_len).float() * cache.v_scale
    num_heads, num_queries, dim = q.shape
    num_kv_heads = k.shape[0]
    grouped = q.reshape(num_kv_heads, num_heads // num_kv_heads * num_queries, dim)
    scores = torch.matmul(grouped.float(), k.transpose(1, 2)) * variant.scaling
    scores = scores.view(num_kv_heads, -1, num_queries, context_len)
    if variant.softcap is not None:
        scores = variant.softcap * torch.tanh(scores / variant.softcap)
    mask = causal_mask(num_queries, context_len, variant.sliding_window, q.device)
    scores = scores.masked_fill(~mask, float("-inf"))
    if variant.sinks is not None:
        sinks = variant.sinks.float().view(num_kv_heads, -1, 1, 1).expand(-1, -1, num_queries, 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :context_len]
    out = torch.matmul(weights.reshape(num_kv_heads, -1, context_len), v)
    return out.view(num_heads, num_queries, -1).transpose(0, 1).to(q.dtype)
