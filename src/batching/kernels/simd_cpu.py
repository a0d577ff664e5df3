"""Explicit vectors for the attention kernels: LLVM's own vectoriser leaves half of the speed in sums over short rows.

Each intrinsic emits LLVM IR over vectors of LANES float32, which LLVM maps to whatever the CPU has. Addresses are plain
integers; strides are in bytes; nothing is checked. The kernels that call them say what the memory must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

_FEATURES = binding.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8
HAS_MATRIX_UNITS = bool(_FEATURES.get("amx-bf16"))
"""torch's own attention uses them for bfloat16, ours does not."""
TOKENS = 4
"""Keys scored by one call of score_keys."""
_FLAGS = ("reassoc", "contract", "arcp", "nsz")
_FLOAT, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


def _at(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load_floats(builder: Any, address: Any, element: Any) -> Any:
    """LANES stored elements as float32: uint16 is bfloat16, whose bits are the upper half of a float32."""
    if element == types.float32:
        return builder.load(_at(builder, address, _vector(_FLOAT)), align=4)
    raw = builder.load(_at(builder, address, _vector(_I16)), align=2)
    shift = ir.Constant(_vector(_I32), [16] * LANES)
    return builder.bitcast(builder.shl(builder.zext(raw, _vector(_I32)), shift), _vector(_FLOAT))


def _splat(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_vector(_FLOAT), ir.Undefined), scalar, ir.Constant(_I32, 0))
    return _shuffle(builder, first, first, [0] * LANES)


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), list(order)))


def _add(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b, flags=_FLAGS)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _add(builder, builder.fmul(a, b, flags=_FLAGS), c)


def _sum_of_four(builder: Any, vectors: Sequence[Any]) -> Any:
    """Four vectors to one of their four sums: halves are interleaved and added, so that no lane is summed alone."""
    lanes = range(LANES)
    even = [lane if lane % 2 == 0 else LANES + lane - 1 for lane in lanes]
    odd = [lane + 1 if lane % 2 == 0 else LANES + lane for lane in lanes]
    pairs = [
        _add(builder, _shuffle(builder, a, b, even), _shuffle(builder, a, b, odd))
        for a, b in (vectors[:2], vectors[2:])
    ]
    low = [lane if lane % 4 < 2 else LANES + lane - 2 for lane in lanes]
    high = [lane + 2 if lane % 4 < 2 else LANES + lane for lane in lanes]
    total = _add(builder, _shuffle(builder, pairs[0], pairs[1], low), _shuffle(builder, pairs[0], pairs[1], high))
    width = LANES
    while width > TOKENS:
        width //= 2
        lower = _shuffle(builder, total, total, range(width))
        total = _add(builder, lower, _shuffle(builder, total, total, range(width, 2 * width)))
    return total


class _Loop:
    """A counted loop in the making: `values` are carried from turn to turn."""

    def __init__(self, builder: Any, stop: Any, step: int, initial: Sequence[Any]) -> None:
        self._builder = builder
        before = builder.block
        self._body = builder.append_basic_block("body")
        self._after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", ir.Constant(_I64, 0), stop), self._body, self._after)
        builder.position_at_end(self._body)
        self.index = builder.phi(_I64)
        self.index.add_incoming(ir.Constant(_I64, 0), before)
        self.values = [builder.phi(value.type) for value in initial]
        for phi, value in zip(self.values, initial, strict=True):
            phi.add_incoming(value, before)
        self._before, self._initial, self._stop, self._step = before, initial, stop, step

    def end(self, values: Sequence[Any]) -> list[Any]:
        """Close the body; returns what the values are after the loop."""
        builder = self._builder
        last = builder.block
        following = builder.add(self.index, ir.Constant(_I64, self._step))
        self.index.add_incoming(following, last)
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, last)
        builder.cbranch(builder.icmp_signed("<", following, self._stop), self._body, self._after)
        builder.position_at_end(self._after)
        results = []
        for initial, value in zip(self._initial, values, strict=True):
            result = builder.phi(value.type)
            result.add_incoming(initial, self._before)
            result.add_incoming(value, last)
            results.append(result)
        return results


@intrinsic
def address_of(typing_context: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), codegen


@intrinsic(prefer_literal=True)
def score_keys(
    typing_context: Any,
    num_heads: Any,
    like: Any,
    q: Any,
    q_stride: Any,
    k: Any,
    k_stride: Any,
    dim: Any,
    out: Any,
    out_stride: Any,
) -> Any:
    """out[g, t] = q[g] . k[t] for a literal number of heads g and TOKENS keys t.

    q float32 `[heads, dim]`, k of the type of `like` `[TOKENS, dim]`, out float32; dim is a multiple of LANES.
    """
    heads = num_heads.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, q_at, q_step, k_at, k_step, length, out_at, out_step = args
        zero = ir.Constant(_vector(_FLOAT), [0.0] * LANES)
        item_bytes = 4 if like == types.float32 else 2
        loop = _Loop(builder, length, LANES, [zero] * (heads * TOKENS))
        sums = list(loop.values)
        q_here = builder.add(q_at, builder.mul(loop.index, ir.Constant(_I64, 4)))
        k_here = builder.add(k_at, builder.mul(loop.index, ir.Constant(_I64, item_bytes)))
        keys = [_load_floats(builder, _row(builder, k_here, k_step, t), like) for t in range(TOKENS)]
        for g in range(heads):
            query = _load_floats(builder, _row(builder, q_here, q_step, g), types.float32)
            for t in range(TOKENS):
                sums[g * TOKENS + t] = _multiply_add(builder, query, keys[t], sums[g * TOKENS + t])
        sums = loop.end(sums)
        for g in range(heads):
            scores = _sum_of_four(builder, sums[g * TOKENS : (g + 1) * TOKENS])
            builder.store(scores, _at(builder, _row(builder, out_at, out_step, g), scores.type), align=4)
        return context.get_dummy_value()

    sixty_four = types.int64
    return types.void(num_heads, like, *[sixty_four] * 7), codegen


@intrinsic(prefer_literal=True)
def score_rows(
    typing_context: Any,
    num_rows: Any,
    q: Any,
    q_stride: Any,
    k: Any,
    dim: Any,
    out: Any,
    out_stride: Any,
) -> Any:
    """out[r, t] = sum over d of q[r, d] * k[d, t] for a literal number of rows r and LANES keys t.

    q float32 `[rows, dim]`, k float32 `[dim, LANES]` contiguous, out float32.
    """
    rows = num_rows.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, q_at, q_step, k_at, length, out_at, out_step = args
        zero = ir.Constant(_vector(_FLOAT), [0.0] * LANES)
        loop = _Loop(builder, length, 1, [zero] * rows)
        key_at = builder.add(k_at, builder.mul(loop.index, ir.Constant(_I64, LANES * 4)))
        keys = _load_floats(builder, key_at, types.float32)
        q_here = builder.add(q_at, builder.mul(loop.index, ir.Constant(_I64, 4)))
        sums = []
        for r in range(rows):
            query = builder.load(_at(builder, _row(builder, q_here, q_step, r), _FLOAT), align=4)
            sums.append(_multiply_add(builder, _splat(builder, query), keys, loop.values[r]))
        for r, scores in enumerate(loop.end(sums)):
            builder.store(scores, _at(builder, _row(builder, out_at, out_step, r), scores.type), align=4)
        return context.get_dummy_value()

    return types.void(num_rows, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def mix_values(
    typing_context: Any,
    num_heads: Any,
    num_vectors: Any,
    like: Any,
    weights: Any,
    weights_stride: Any,
    v: Any,
    v_stride: Any,
    num_tokens: Any,
    out: Any,
    out_stride: Any,
) -> Any:
    """out[g, d] += sum over num_tokens t of weights[g, t] * v[t, d], for literal numbers of heads and vectors of d.

    weights and out float32, v of the type of `like`.
    """
    heads, vectors = num_heads.literal_value, num_vectors.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, _, w_at, w_step, v_at, v_step, length, out_at, out_step = args
        item_bytes = 4 if like == types.float32 else 2

        def out_vector(g: int, c: int) -> Any:
            here = builder.add(_row(builder, out_at, out_step, g), ir.Constant(_I64, c * LANES * 4))
            return _at(builder, here, _vector(_FLOAT))

        places = [(g, c) for g in range(heads) for c in range(vectors)]
        loop = _Loop(builder, length, 1, [builder.load(out_vector(g, c), align=4) for g, c in places])
        mixed = list(loop.values)
        row = builder.add(v_at, builder.mul(loop.index, v_step))
        values = [
            _load_floats(builder, builder.add(row, ir.Constant(_I64, c * LANES * item_bytes)), like)
            for c in range(vectors)
        ]
        w_here = builder.add(w_at, builder.mul(loop.index, ir.Constant(_I64, 4)))
        for g in range(heads):
            weight = builder.load(_at(builder, _row(builder, w_here, w_step, g), _FLOAT), align=4)
            weight = _splat(builder, weight)
            for c in range(vectors):
                index = g * vectors + c
                mixed[index] = _multiply_add(builder, weight, values[c], mixed[index])
        mixed = loop.end(mixed)
        for (g, c), value in zip(places, mixed, strict=True):
            builder.store(value, out_vector(g, c), align=4)
        return context.get_dummy_value()

    sixty_four = types.int64
    return types.void(num_heads, num_vectors, like, *[sixty_four] * 7), codegen


def _row(builder: Any, address: Any, stride: Any, index: int) -> Any:
    return builder.add(address, builder.mul(stride, ir.Constant(_I64, index))) if index else address
