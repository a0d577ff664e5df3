"""Paged decode attention for a CPU: reads K and V where they lie, one task per sequence and KV head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from batching.kernels.bfloat16_cpu import FASTMATH, exp, load, rounded
from batching.kernels.simd_cpu import LANES, TOKENS, address_of, mix_values, score_keys

MAX_HEADS = 4
"""Query heads of one KV head that share one pass over its keys and values: their sums stay in registers."""
VECTORS = 4
"""Vectors of a value row that one pass mixes."""


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _score_plainly(q: Any, keys: Any, first: int, scores: Any, column: int) -> None:
    """scores[g, column + t] = q[g] . keys[t] for t from `first`; q `[group, dim]`, keys `[block_size, dim]`."""
    for g in range(q.shape[0]):
        for t in range(first, keys.shape[0]):
            total = np.float32(0.0)
            for d in range(keys.shape[1]):
                total += q[g, d] * load(keys[t, d])
            scores[g, column + t] = total


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _score_tokens(heads: int, q: Any, keys: Any, like: Any, dim: int, num_tokens: int, out: Any) -> None:
    """_score_plainly for at most MAX_HEADS heads and TOKENS tokens at a time; q, keys and out are (address, stride).

    Addresses, because views and whole arrays as arguments took half of the kernel's time.
    """
    for t in range(0, num_tokens, TOKENS):
        k_at, out_at = keys[0] + t * keys[1], out[0] + t * 4
        if heads == 4:
            score_keys(4, like, q[0], q[1], k_at, keys[1], dim, out_at, out[1])
        elif heads == 3:
            score_keys(3, like, q[0], q[1], k_at, keys[1], dim, out_at, out[1])
        elif heads == 2:
            score_keys(2, like, q[0], q[1], k_at, keys[1], dim, out_at, out[1])
        else:
            score_keys(1, like, q[0], q[1], k_at, keys[1], dim, out_at, out[1])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _score(q: Any, cache: Any, blocks: Any, head: int, scores: Any) -> None:
    """Scores of all keys in the blocks, in vectors as far as they go; q `[group, dim]`, scores `[group, slots]`."""
    group, dim = q.shape
    block_size = cache.shape[2]
    whole = 0 if dim % LANES else block_size - block_size % TOKENS
    like = cache[0, 0, 0, 0]
    for first in range(0, group, MAX_HEADS):
        heads = min(MAX_HEADS, group - first)
        query = (address_of(q) + first * q.strides[0], q.strides[0])
        for b in range(blocks.shape[0]):
            keys = address_of(cache) + blocks[b] * cache.strides[0] + head * cache.strides[1]
            out = address_of(scores) + first * scores.strides[0] + b * block_size * 4
            _score_tokens(heads, query, (keys, cache.strides[2]), like, dim, whole, (out, scores.strides[0]))
    if whole < block_size:
        for b in range(blocks.shape[0]):
            _score_plainly(q, cache[blocks[b], head], whole, scores, b * block_size)


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _mix_plainly(weights: Any, column: int, values: Any, first: int, out: Any) -> None:
    """out[g, d] += sum over t of weights[g, column + t] * values[t, d] for d from `first`; out `[group, dim]`."""
    for g in range(out.shape[0]):
        for t in range(values.shape[0]):
            for d in range(first, values.shape[1]):
                out[g, d] += weights[g, column + t] * load(values[t, d])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _mix_tokens(heads: int, weights: Any, values: Any, like: Any, dim: int, num_tokens: int, out: Any) -> None:
    """_mix_plainly for at most MAX_HEADS heads and whole vectors of dim; weights, values, out are (address, stride)."""
    item_bytes = values[1] // dim
    w_at, w_step, v_step, out_step = weights[0], weights[1], values[1], out[1]
    d = 0
    while d + LANES <= dim:
        v_at, out_at = values[0] + d * item_bytes, out[0] + d * 4
        if d + VECTORS * LANES > dim:
            for g in range(heads):
                w_one, out_one = w_at + g * w_step, out_at + g * out_step
                mix_values(1, 1, like, w_one, w_step, v_at, v_step, num_tokens, out_one, out_step)
            d += LANES
            continue
        if heads == 4:
            mix_values(4, VECTORS, like, w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
        elif heads == 3:
            mix_values(3, VECTORS, like, w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
        elif heads == 2:
            mix_values(2, VECTORS, like, w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
        else:
            mix_values(1, VECTORS, like, w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
        d += VECTORS * LANES


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _mix(weights: Any, cache: Any, blocks: Any, head: int, num_slots: int, out: Any) -> None:
    """Weighted sums of the values in the first slots of the blocks; weights `[group, slots]`, out `[group, dim]`.

    Only slots that are filled: what lies behind them may be broken numbers, and 0 * NaN is NaN.
    """
    group, dim = out.shape
    block_size = cache.shape[2]
    like = cache[0, 0, 0, 0]
    for first in range(0, group, MAX_HEADS):
        heads = min(MAX_HEADS, group - first)
        mixed = (address_of(out) + first * out.strides[0], out.strides[0])
        for b in range(blocks.shape[0]):
            values = address_of(cache) + blocks[b] * cache.strides[0] + head * cache.strides[1]
            share = address_of(weights) + first * weights.strides[0] + b * block_size * 4
            num_tokens = min(block_size, num_slots - b * block_size)
            _mix_tokens(heads, (share, weights.strides[0]), (values, cache.strides[2]), like, dim, num_tokens, mixed)
    if dim % LANES:
        for b in range(blocks.shape[0]):
            filled = cache[blocks[b], head, : min(block_size, num_slots - b * block_size)]
            _mix_plainly(weights, b * block_size, filled, dim - dim % LANES, out)


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def softmax(scores: Any, softcap: float, sink: float) -> Any:
    """Turn the scores of one head into unnormalised weights; returns their sum with the sink's share."""
    cap = np.float32(softcap)
    if cap > np.float32(0.0):
        for t in range(scores.shape[0]):
            scores[t] = cap * np.tanh(scores[t] / cap)
    peak = np.float32(sink)
    for t in range(scores.shape[0]):
        peak = max(peak, scores[t])
    total = np.float32(0.0)
    for t in range(scores.shape[0]):
        weight = exp(scores[t] - peak)
        scores[t] = weight
        total += weight
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
    blocks = table[first_block : first_block + num_blocks]
    _score(scaled, k_cache, blocks, head, scores)
    totals = np.empty(group, np.float32)
    for g in range(group):
        sink = knobs[3 + head * group + g] if knobs.shape[0] > 3 else -np.inf
        totals[g] = softmax(scores[g, first : length - origin], knobs[2], sink)
        scores[g, :first] = np.float32(0.0)
    mixed = np.zeros((group, v_cache.shape[3]), np.float32)
    _mix(scores, v_cache, blocks, head, length - origin, mixed)
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
