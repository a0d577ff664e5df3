"""Paged decode attention for a CPU: reads K and V where they lie, one task per sequence and KV head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from batching.kernels.bfloat16_cpu import FASTMATH, exp, load, rounded

TILE = 4
"""Keys scored, and values mixed, in one pass over a row; a block of fewer or a ragged block goes one by one."""


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _score_block(q: Any, keys: Any, scores: Any) -> None:
    """scores[g, t] = q[g] . keys[t] for one block; q `[group, dim]`, keys `[block_size, dim]`."""
    block_size, dim = keys.shape
    whole = block_size - block_size % TILE
    for g in range(q.shape[0]):
        query = q[g]
        for t in range(0, whole, TILE):
            k0, k1, k2, k3 = keys[t], keys[t + 1], keys[t + 2], keys[t + 3]
            s0 = s1 = s2 = s3 = np.float32(0.0)
            for d in range(dim):
                x = query[d]
                s0 += x * load(k0[d])
                s1 += x * load(k1[d])
                s2 += x * load(k2[d])
                s3 += x * load(k3[d])
            scores[g, t], scores[g, t + 1], scores[g, t + 2], scores[g, t + 3] = s0, s1, s2, s3
        for t in range(whole, block_size):
            total = np.float32(0.0)
            for d in range(dim):
                total += query[d] * load(keys[t, d])
            scores[g, t] = total


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _mix_block(weights: Any, values: Any, out: Any) -> None:
    """out[g] += sum over t of weights[g, t] * values[t] for one block; out `[group, dim]` float32."""
    block_size, dim = values.shape
    whole = block_size - block_size % TILE
    for g in range(weights.shape[0]):
        mixed = out[g]
        for t in range(0, whole, TILE):
            v0, v1, v2, v3 = values[t], values[t + 1], values[t + 2], values[t + 3]
            w0, w1, w2, w3 = weights[g, t], weights[g, t + 1], weights[g, t + 2], weights[g, t + 3]
            for d in range(dim):
                mixed[d] += w0 * load(v0[d]) + w1 * load(v1[d]) + w2 * load(v2[d]) + w3 * load(v3[d])
        for t in range(whole, block_size):
            for d in range(dim):
                mixed[d] += weights[g, t] * load(values[t, d])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _softmax(scores: Any, first: int, length: int, softcap: float, sink: float) -> Any:
    """Turn scores[first:length] into unnormalised weights, zero the others; returns the sum with the sink's share."""
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
    scores[:first] = np.float32(0.0)
    scores[length:] = np.float32(0.0)
    if sink > -np.inf:
        total += exp(np.float32(sink) - peak)
    return total


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _attend_one(q: Any, k_cache: Any, v_cache: Any, table: Any, length: int, head: int, knobs: Any, out: Any) -> None:
    """One sequence and one KV head; q and out `[q_heads, dim]` of the sequence, knobs as in decode_attention."""
    group = q.shape[0] // k_cache.shape[1]
    block_size = k_cache.shape[2]
    window = int(knobs[1])
    first_block = max(0, length - window) // block_size if window > 0 else 0
    origin = first_block * block_size
    first = max(0, length - window) - origin if window > 0 else 0
    num_blocks = (length + block_size - 1) // block_size - first_block
    scaled = np.empty((group, q.shape[1]), np.float32)
    for g in range(group):
        for d in range(q.shape[1]):
            scaled[g, d] = load(q[head * group + g, d]) * np.float32(knobs[0])
    scores = np.empty((group, num_blocks * block_size), np.float32)
    for b in range(num_blocks):
        span = scores[:, b * block_size : (b + 1) * block_size]
        _score_block(scaled, k_cache[table[first_block + b], head], span)
    totals = np.empty(group, np.float32)
    for g in range(group):
        sink = knobs[3 + head * group + g] if knobs.shape[0] > 3 else -np.inf
        totals[g] = _softmax(scores[g], first, length - origin, knobs[2], sink)
    mixed = np.zeros((group, v_cache.shape[3]), np.float32)
    for b in range(num_blocks):
        # Only slots that are filled: what lies behind them may be broken numbers, and 0 * NaN is NaN.
        num_filled = min(block_size, length - origin - b * block_size)
        span = scores[:, b * block_size : b * block_size + num_filled]
        _mix_block(span, v_cache[table[first_block + b], head, :num_filled], mixed)
    for g in range(group):
        share = np.float32(1.0) / totals[g]
        for d in range(mixed.shape[1]):
            out[head * group + g, d] = rounded(mixed[g, d] * share, out[0, 0])


@njit(parallel=True, error_model="numpy", nogil=True, cache=True)
def decode_attention(q: Any, k_cache: Any, v_cache: Any, tables: Any, lens: Any, knobs: Any, out: Any) -> None:
    """Attention of N single-token rows, spread over the threads.

    q, out `[N, q_heads, dim]`; k_cache, v_cache `[num_blocks, kv_heads, block_size, dim]`; tables `[N, blocks]` int32;
    lens `[N]` int32; knobs float64: scaling, window (0: none), softcap (0: none), then one sink per q head if any.
    """
    num_heads = k_cache.shape[1]
    for task in prange(lens.shape[0] * num_heads):
        row, head = task // num_heads, task % num_heads
        _attend_one(q[row], k_cache, v_cache, tables[row], lens[row], head, knobs, out[row])


@njit(error_model="numpy", nogil=True, cache=True)
def decode_attention_serial(q: Any, k_cache: Any, v_cache: Any, tables: Any, lens: Any, knobs: Any, out: Any) -> None:
    """decode_attention on the calling thread: cheaper where the work is less than waking the others."""
    for row in range(lens.shape[0]):
        for head in range(k_cache.shape[1]):
            _attend_one(q[row], k_cache, v_cache, tables[row], lens[row], head, knobs, out[row])
