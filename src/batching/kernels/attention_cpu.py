"""Paged decode attention for a CPU: reads K and V where they lie, one task per sequence and KV head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from batching.kernels.bfloat16_cpu import FASTMATH, exp, load, rounded


@njit(fastmath=FASTMATH, nogil=True, cache=True, inline="never")
def _score(q: Any, k_cache: Any, table: Any, head: int, first: int, length: int, scores: Any) -> None:
    """scores[g, t] = q[g] . k[t] for first <= t < length; q `[group, dim]` float32."""
    block_size, dim = k_cache.shape[2], k_cache.shape[3]
    key = np.empty(dim, np.float32)
    for t in range(first, length):
        row = k_cache[table[t // block_size], head, t % block_size]
        for d in range(dim):
            key[d] = load(row[d])
        for g in range(q.shape[0]):
            total = np.float32(0.0)
            for d in range(dim):
                total += q[g, d] * key[d]
            scores[g, t] = total


@njit(fastmath=FASTMATH, nogil=True, cache=True, inline="never")
def _softmax(scores: Any, first: int, length: int, softcap: float, sink: float) -> Any:
    """Turn one row of scores into unnormalised weights in place; returns their sum (with the sink's share)."""
    cap = np.float32(softcap)
    if cap > np.float32(0.0):
        for t in range(first, length):
            scores[t] = cap * np.tanh(scores[t] / cap)
    peak = np.float32(sink)
    for t in range(first, length):
        peak = max(peak, scores[t])
    total = np.float32(0.0)
    for t in range(first, length):
        weight = exp(scores[t] - peak)
        scores[t] = weight
        total += weight
    if sink > -np.inf:
        total += exp(np.float32(sink) - peak)
    return total


@njit(fastmath=FASTMATH, nogil=True, cache=True, inline="never")
def _mix(weights: Any, v_cache: Any, table: Any, head: int, first: int, length: int, out: Any) -> None:
    """out[g] = sum over t of weights[g, t] * v[t]; out `[group, v_dim]` float32."""
    block_size, dim = v_cache.shape[2], v_cache.shape[3]
    value = np.empty(dim, np.float32)
    out[:] = np.float32(0.0)
    for t in range(first, length):
        row = v_cache[table[t // block_size], head, t % block_size]
        for d in range(dim):
            value[d] = load(row[d])
        for g in range(weights.shape[0]):
            weight = weights[g, t]
            for d in range(dim):
                out[g, d] += weight * value[d]


@njit(fastmath=FASTMATH, nogil=True, cache=True, inline="never")
def _attend_one(q: Any, k_cache: Any, v_cache: Any, table: Any, length: int, head: int, knobs: Any, out: Any) -> None:
    """One sequence and one KV head; q and out `[q_heads, dim]` of the sequence, knobs as in decode_attention."""
    group = q.shape[0] // k_cache.shape[1]
    window = int(knobs[1])
    first = max(0, length - window) if window > 0 else 0
    scaled = np.empty((group, q.shape[1]), np.float32)
    for g in range(group):
        for d in range(q.shape[1]):
            scaled[g, d] = load(q[head * group + g, d]) * np.float32(knobs[0])
    scores = np.empty((group, length), np.float32)
    mixed = np.empty((group, v_cache.shape[3]), np.float32)
    _score(scaled, k_cache, table, head, first, length, scores)
    totals = np.empty(group, np.float32)
    for g in range(group):
        sink = knobs[3 + head * group + g] if knobs.shape[0] > 3 else -np.inf
        totals[g] = _softmax(scores[g], first, length, knobs[2], sink)
    _mix(scores, v_cache, table, head, first, length, mixed)
    for g in range(group):
        share = np.float32(1.0) / totals[g]
        for d in range(mixed.shape[1]):
            out[head * group + g, d] = rounded(mixed[g, d] * share, out[0, 0])


@njit(parallel=True, nogil=True, cache=True)
def decode_attention(q: Any, k_cache: Any, v_cache: Any, tables: Any, lens: Any, knobs: Any, out: Any) -> None:
    """Attention of N single-token rows, spread over the threads.

    q, out `[N, q_heads, dim]`; k_cache, v_cache `[num_blocks, kv_heads, block_size, dim]`; tables `[N, blocks]` int32;
    lens `[N]` int32; knobs float64: scaling, window (0: none), softcap (0: none), then one sink per q head if any.
    """
    num_heads = k_cache.shape[1]
    for task in prange(lens.shape[0] * num_heads):
        row, head = task // num_heads, task % num_heads
        _attend_one(q[row], k_cache, v_cache, tables[row], lens[row], head, knobs, out[row])


@njit(nogil=True, cache=True)
def decode_attention_serial(q: Any, k_cache: Any, v_cache: Any, tables: Any, lens: Any, knobs: Any, out: Any) -> None:
    """decode_attention on the calling thread: cheaper where the work is less than waking the others."""
    for row in range(lens.shape[0]):
        for head in range(k_cache.shape[1]):
            _attend_one(q[row], k_cache, v_cache, tables[row], lens[row], head, knobs, out[row])
