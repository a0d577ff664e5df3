"""Attention of a prefill chunk for a CPU without matrix units: keys are turned once, then read by tiles of queries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from batching.kernels.attention_cpu import MAX_HEADS, VECTORS, softmax
from batching.kernels.bfloat16_cpu import FASTMATH, load, rounded
from batching.kernels.simd_cpu import LANES, address_of, mix_values, score_rows

ROWS = 8
"""Rows of a tile that are scored together: their sums stay in registers."""
TILE_POSITIONS = 16
"""Query positions of a tile; times the heads of a group they are a multiple of ROWS and of MAX_HEADS."""
MAX_CONTEXT_LEN = 2048
"""Up to here the keys and values of one head, as float32, stay in a core's cache."""


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _turn_block(cache: Any, block: int, head: int, first: int, num_tokens: int, keys: Any) -> None:
    """keys[t // LANES, d, t % LANES] = the key of token t, for the tokens of one block; `first` is its first token."""
    for t in range(num_tokens):
        tile, lane = (first + t) // LANES, (first + t) % LANES
        for d in range(keys.shape[1]):
            keys[tile, d, lane] = load(cache[block, head, t, d])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _copy_block(cache: Any, block: int, head: int, num_tokens: int, values: Any) -> None:
    for t in range(num_tokens):
        for d in range(values.shape[1]):
            values[t, d] = load(cache[block, head, t, d])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _score(queries: Any, keys: Any, first_tile: int, scores: Any) -> None:
    """scores[r, :] of the key tiles from `first_tile`, as many as scores has columns for."""
    q_step, out_step = queries.strides[0], scores.strides[0]
    for r in range(0, queries.shape[0], ROWS):
        q_at = address_of(queries) + r * q_step
        for tile in range(scores.shape[1] // LANES):
            k_at = address_of(keys) + (first_tile + tile) * keys.strides[0]
            out_at = address_of(scores) + r * out_step + tile * LANES * 4
            score_rows(ROWS, q_at, q_step, k_at, queries.shape[1], out_at, out_step)


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _mix(weights: Any, values: Any, num_tokens: int, mixed: Any) -> None:
    """mixed[r] += sum of weights[r, t] * values[t] over the first tokens."""
    w_step, v_step, out_step = weights.strides[0], values.strides[0], mixed.strides[0]
    for r in range(0, mixed.shape[0], MAX_HEADS):
        w_at = address_of(weights) + r * w_step
        d = 0
        while d < mixed.shape[1]:
            v_at, out_at = address_of(values) + d * 4, address_of(mixed) + r * out_step + d * 4
            if d + VECTORS * LANES <= mixed.shape[1]:
                mix_values(MAX_HEADS, VECTORS, values[0, 0], w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
                d += VECTORS * LANES
            else:
                mix_values(MAX_HEADS, 1, values[0, 0], w_at, w_step, v_at, v_step, num_tokens, out_at, out_step)
                d += LANES


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _attend_tile(q: Any, first_row: int, keys: Any, values: Any, head: int, span: Any, knobs: Any, out: Any) -> None:
    """The queries from `first_row` of one KV head; keys `[tiles, dim, LANES]`, values `[tokens, dim]`.

    span: the position of row 0 of q, and the number of rows.
    """
    start, num_rows = span
    group = out.shape[1] // knobs[1]
    num_positions = min(TILE_POSITIONS, num_rows - first_row)
    end = start + first_row + num_positions
    window = int(knobs[0][1])
    begin = max(0, start + first_row + 1 - window) // LANES * LANES if window > 0 else 0
    queries = np.zeros((TILE_POSITIONS * group, q.shape[2]), np.float32)
    for p in range(num_positions):
        for g in range(group):
            for d in range(q.shape[2]):
                queries[p * group + g, d] = load(q[first_row + p, head * group + g, d]) * np.float32(knobs[0][0])
    scores = np.empty((queries.shape[0], (end - begin + LANES - 1) // LANES * LANES), np.float32)
    _score(queries, keys, begin // LANES, scores)
    totals = np.ones(queries.shape[0], np.float32)
    for p in range(num_positions):
        length = start + first_row + p + 1
        lowest = max(begin, length - window) if window > 0 else begin
        for g in range(group):
            row = p * group + g
            sink = knobs[0][3 + head * group + g] if knobs[0].shape[0] > 3 else -np.inf
            totals[row] = softmax(scores[row, lowest - begin : length - begin], knobs[0][2], sink)
            scores[row, : lowest - begin] = np.float32(0.0)
            scores[row, length - begin :] = np.float32(0.0)
    mixed = np.zeros((queries.shape[0], values.shape[1]), np.float32)
    _mix(scores, values[begin:], end - begin, mixed)
    for p in range(num_positions):
        for g in range(group):
            share = np.float32(1.0) / totals[p * group + g]
            for d in range(values.shape[1]):
                out[first_row + p, head * group + g, d] = rounded(mixed[p * group + g, d] * share, out[0, 0, 0])


@njit(parallel=True, error_model="numpy", nogil=True, cache=True)
def prefill_attention(q: Any, k_cache: Any, v_cache: Any, table: Any, start: int, knobs: Any, out: Any) -> None:
    """Causal attention of the tokens at positions start .. start + n - 1 of one sequence, whose K and V are cached.

    q, out `[n, q_heads, dim]`; k_cache, v_cache `[num_blocks, kv_heads, block_size, dim]`, dim a multiple of LANES;
    table `[blocks]`; knobs as in decode_attention.
    """
    num_rows = q.shape[0]
    length = start + num_rows
    num_heads, block_size = k_cache.shape[1], k_cache.shape[2]
    num_blocks = (length + block_size - 1) // block_size
    num_tiles = (length + LANES - 1) // LANES
    keys = np.zeros((num_heads, num_tiles, q.shape[2], LANES), np.float32)
    values = np.empty((num_heads, length, out.shape[2]), np.float32)
    for task in prange(num_heads * num_blocks):
        head, b = task // num_blocks, task % num_blocks
        first = b * block_size
        num_tokens = min(block_size, length - first)
        _turn_block(k_cache, table[b], head, first, num_tokens, keys[head])
        _copy_block(v_cache, table[b], head, num_tokens, values[head, first:])
    num_chunks = (num_rows + TILE_POSITIONS - 1) // TILE_POSITIONS
    for task in prange(num_heads * num_chunks):
        head = task % num_heads
        chunk = task // num_heads
        # First and last chunks in turns: late ones see more keys, and the threads get equal shares.
        chunk = chunk // 2 if chunk % 2 == 0 else num_chunks - 1 - chunk // 2
        first_row = chunk * TILE_POSITIONS
        _attend_tile(q, first_row, keys[head], values[head], head, (start, num_rows), (knobs, num_heads), out)
