"""The small operations between the matrix products of a Llama-like layer, each one pass over its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from batching.kernels.bfloat16_cpu import FASTMATH, exp, load, rounded


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _add_rms_norm_row(residual: Any, x: Any, weight: Any, eps: float, out: Any) -> None:
    total = np.float32(0.0)
    for i in range(residual.shape[0]):
        value = residual[i] + load(x[i])
        residual[i] = value
        total += value * value
    scale = np.float32(1.0) / np.sqrt(total / np.float32(residual.shape[0]) + np.float32(eps))
    for i in range(residual.shape[0]):
        out[i] = rounded(residual[i] * scale * weight[i], out[0])


@njit(error_model="numpy", nogil=True, cache=True)
def add_rms_norm_serial(residual: Any, x: Any, weight: Any, eps: float, out: Any) -> None:
    """residual += x, then out = RMSNorm(residual) * weight (Zhang and Sennrich 2019); all `[T, hidden]`.

    residual and weight are float32: the residual stream keeps its precision in bfloat16 models too.
    """
    for t in range(x.shape[0]):
        _add_rms_norm_row(residual[t], x[t], weight, eps, out[t])


@njit(parallel=True, error_model="numpy", nogil=True, cache=True)
def add_rms_norm(residual: Any, x: Any, weight: Any, eps: float, out: Any) -> None:
    """add_rms_norm_serial with the rows spread over the threads."""
    for t in prange(x.shape[0]):
        _add_rms_norm_row(residual[t], x[t], weight, eps, out[t])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _silu_mul_row(gate_up: Any, out: Any) -> None:
    size = out.shape[0]
    for i in range(size):
        gate = load(gate_up[i])
        sigmoid = np.float32(1.0) / (np.float32(1.0) + exp(-gate))
        out[i] = rounded(gate * sigmoid * load(gate_up[size + i]), out[0])


@njit(error_model="numpy", nogil=True, cache=True)
def silu_mul_serial(gate_up: Any, out: Any) -> None:
    """out = silu(gate) * up with gate_up `[T, 2 * size]`, out `[T, size]`."""
    for t in range(out.shape[0]):
        _silu_mul_row(gate_up[t], out[t])


@njit(parallel=True, error_model="numpy", nogil=True, cache=True)
def silu_mul(gate_up: Any, out: Any) -> None:
    """silu_mul_serial with the rows spread over the threads."""
    for t in prange(out.shape[0]):
        _silu_mul_row(gate_up[t], out[t])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _rotate(head: Any, norm: Any, eps: float, cos: Any, sin: Any, out: Any) -> None:
    """RoPE of one head (the two halves are the pairs, as in transformers), after RMSNorm where norm is not empty."""
    half = head.shape[0] // 2
    scale = np.float32(1.0)
    if norm.shape[0] > 0:
        total = np.float32(0.0)
        for i in range(head.shape[0]):
            value = load(head[i])
            total += value * value
        scale = np.float32(1.0) / np.sqrt(total / np.float32(head.shape[0]) + np.float32(eps))
    for i in range(half):
        a, b = load(head[i]) * scale, load(head[half + i]) * scale
        if norm.shape[0] > 0:
            a, b = a * norm[i], b * norm[half + i]
        out[i] = rounded(a * cos[i] - b * sin[i], out[0])
        out[half + i] = rounded(b * cos[i] + a * sin[i], out[0])


@njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def _rope_write_row(
    qkv: Any, cos: Any, sin: Any, q_norm: Any, k_norm: Any, eps: float, block: int, offset: int, k: Any, v: Any, q: Any
) -> None:
    num_heads, dim = q.shape
    num_kv_heads = k.shape[1]
    for h in range(num_heads):
        _rotate(qkv[h * dim : (h + 1) * dim], q_norm, eps, cos, sin, q[h])
    for h in range(num_kv_heads):
        start = (num_heads + h) * dim
        _rotate(qkv[start : start + dim], k_norm, eps, cos, sin, k[block, h, offset])
        start = (num_heads + num_kv_heads + h) * dim
        for d in range(dim):
            v[block, h, offset, d] = rounded(load(qkv[start + d]), v[0, 0, 0, 0])


@njit(error_model="numpy", nogil=True, cache=True)
def rope_write_serial(qkv: Any, rope: Any, norms: Any, slots: Any, k: Any, v: Any, q: Any) -> None:
    """Rotate q and k, write k and v to their slots, and leave q in `q`.

    qkv `[T, (q_heads + 2 * kv_heads) * dim]`; rope (cos, sin, positions): `[max_len, dim / 2]` float32 and `[T]`;
    norms (q_norm, k_norm, eps): `[dim]` float32 or empty; slots (block_of, offset_of) `[T]` int32;
    k, v `[num_blocks, kv_heads, block_size, dim]`; q `[T, q_heads, dim]`.
    """
    cos, sin, positions = rope
    q_norm, k_norm, eps = norms
    block_of, offset_of = slots
    for t in range(qkv.shape[0]):
        p = positions[t]
        _rope_write_row(qkv[t], cos[p], sin[p], q_norm, k_norm, eps, block_of[t], offset_of[t], k, v, q[t])


@njit(parallel=True, error_model="numpy", nogil=True, cache=True)
def rope_write(qkv: Any, rope: Any, norms: Any, slots: Any, k: Any, v: Any, q: Any) -> None:
    """rope_write_serial with the rows spread over the threads."""
    cos, sin, positions = rope
    q_norm, k_norm, eps = norms
    block_of, offset_of = slots
    for t in prange(qkv.shape[0]):
        p = positions[t]
        _rope_write_row(qkv[t], cos[p], sin[p], q_norm, k_norm, eps, block_of[t], offset_of[t], k, v, q[t])
