"""Batches over a paged cache full of NaN, and how far a kernel's attention is from that of the reference."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from batching.attention.reference import AttentionVariant, attend_sequence
from batching.kernels.paged_attention_config import MAX_SHORT_QUERIES, num_parts_of
from batching.kv_cache import LayerCache, LayerShape

SPLIT_LEN = 128
K_SCALE, V_SCALE = 0.5, 2.0
UNWRITTEN = 7.0
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""Of each number, relative to 1 + its size; half the digits of a product of such factors."""


@dataclass(frozen=True)
class Case:
    """rows: (tokens in the cache, tokens computed now) of each sequence."""

    rows: tuple[tuple[int, int], ...]
    group: int = 2
    num_kv_heads: int = 2
    dims: tuple[int, int] = (32, 16)
    block_size: int = 16
    dtype: str = "float32"
    cache_dtype: str | None = None
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    num_empty: int = 0
    """Sequences of padding without a row."""
    num_zero: int = 0
    """Sequences of padding with one row and no context."""
    num_spare_rows: int = 0
    """Rows behind the last sequence."""
    is_by_head: bool = False
    """q lies as [heads, tokens, dim], not as [tokens, heads, dim]."""
    seed: int = 7


DECODES = ((0, 1), (15, 1), (16, 1), (17, 1), (127, 1), (128, 1), (300, 1))
A_FEW = ((127, 1), (300, 1))
VERIFIED = ((0, 2), (120, 9), (127, 2), (250, 7), (0, 16))
CHUNKS = ((0, 17), (13, 40), (100, 33))
MIXED = ((299, 1), (31, 1), (126, 4), (0, 45), (77, 18))

CASES: dict[str, Case] = {
    "decodes": Case(DECODES),
    "decodes in a window": Case(A_FEW, window=5),
    "decodes in a window wider than a split": Case(A_FEW, window=130),
    "decodes with softcap": Case(A_FEW, softcap=1.5),
    "decodes with sinks": Case(A_FEW, has_sinks=True),
    "drafts": Case(VERIFIED, num_kv_heads=1),
    "drafts in a window with sinks": Case(VERIFIED, num_kv_heads=1, window=20, has_sinks=True),
    "chunks": Case(CHUNKS),
    "chunks in a window of one": Case(CHUNKS, window=1),
    "chunks in a window": Case(((0, 17), (70, 80)), window=9),
    "chunks with softcap": Case(CHUNKS, softcap=1.5),
    "chunks with sinks": Case(CHUNKS, has_sinks=True),
    "mixed": Case(MIXED),
    "mixed with everything": Case(MIXED, window=60, softcap=2.0, has_sinks=True),
    "a head for each head": Case(((140, 1), (3, 20)), group=1),
    "three heads for one": Case(((140, 1), (20, 6), (3, 50)), group=3),
    "eight heads for one": Case(((140, 1), (20, 6), (3, 20)), group=8, num_kv_heads=1),
    "blocks of 32": Case(((31, 1), (33, 3), (0, 40)), block_size=32),
    "blocks of 64": Case(((63, 1), (64, 1), (0, 64)), block_size=64),
    "dims of 80": Case(((140, 1), (3, 20)), dims=(80, 80)),
    "K and V of other dims": Case(((140, 1), (3, 20)), dims=(16, 96)),
    "float16": Case(((140, 1), (3, 20)), dtype="float16"),
    "bfloat16": Case(((140, 1), (3, 20)), dtype="bfloat16"),
    "float8 behind bfloat16": Case(((140, 1), (3, 20)), dtype="bfloat16", cache_dtype="float8_e4m3fn"),
    "padding": Case(((140, 1), (20, 3), (3, 20)), num_empty=3, num_zero=2, num_spare_rows=5),
    "padding with sinks in a window": Case(((140, 1),), window=9, has_sinks=True, num_zero=2, num_empty=1),
    "q by head": Case(((140, 1), (20, 3), (3, 20)), is_by_head=True),
}

SLOW_CASES: dict[str, Case] = {
    "all decodes in a window": Case(DECODES, window=130, has_sinks=True),
    "all decodes with softcap": Case(DECODES, softcap=1.5),
    "dims of 256": Case(((300, 1), (3, 40)), dims=(256, 256)),
    "dims of 192 and 128": Case(((300, 1), (3, 40)), dims=(192, 128)),
    "one head for 64": Case(((300, 1), (3, 20)), group=64, num_kv_heads=1),
    "many splits": Case(((128 * 20 - 1, 1), (128 * 17, 3)), num_kv_heads=1),
    "many splits in a window": Case(((128 * 20 - 1, 1), (128 * 20, 3)), num_kv_heads=1, window=128 * 18 + 1),
    "a long chunk after a long prefix": Case(((701, 333),), num_kv_heads=1),
    "float8 with everything": replace(
        CASES["mixed with everything"], dtype="bfloat16", cache_dtype="float8_e4m3fn", num_spare_rows=2
    ),
}


def random_case(seed: int) -> Case:
    """Any mix of everything, of a few hundred positions."""
    dice = random.Random(seed)
    rows = [(dice.randrange(280), 1) for _ in range(dice.randrange(4))]
    rows += [(dice.randrange(150), dice.randrange(2, 17)) for _ in range(dice.randrange(3))]
    rows += [(dice.randrange(60), dice.randrange(17, 60)) for _ in range(dice.randrange(1, 3))]
    dice.shuffle(rows)
    return Case(
        tuple(rows),
        group=dice.choice([1, 2, 3, 4, 5, 8]),
        num_kv_heads=dice.choice([1, 2]),
        dims=dice.choice([(16, 16), (32, 32), (80, 80), (24, 40), (96, 64)]),
        block_size=dice.choice([16, 32, 64]),
        window=dice.choice([None, None, 1, 17, 64, 129]),
        softcap=dice.choice([None, None, 2.0]),
        has_sinks=dice.choice([False, True]),
        num_empty=dice.randrange(3),
        num_zero=dice.randrange(2),
        num_spare_rows=dice.randrange(4),
        is_by_head=dice.choice([False, True]),
        seed=seed,
    )


class Batch:
    """The tensors of a case on a device; blocks lie in any order, and what no sequence holds is NaN."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device
        self._random = torch.Generator().manual_seed(case.seed)
        self.rows = [*case.rows, *[(-1, 1)] * case.num_zero, *[(0, 0)] * case.num_empty]
        self.starts = [0, *accumulate(new for _, new in self.rows)]
        self.lens = [cached + new for cached, new in self.rows]
        num_heads = case.group * case.num_kv_heads
        dtype = getattr(torch, case.dtype)
        self.q = self._normal(self.starts[-1] + case.num_spare_rows, num_heads, case.dims[0]).to(dtype).to(device)
        self.q = self.q.transpose(0, 1)
        if case.is_by_head:
            self.q = self.q.contiguous()
        self.variant = AttentionVariant(
            scaling=0.3,
            sliding_window=case.window,
            softcap=case.softcap,
            sinks=self._normal(num_heads).to(device) if case.has_sinks else None,
        )
        self._fill_cache(getattr(torch, case.cache_dtype or case.dtype))

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._random)

    def _fill_cache(self, dtype: torch.dtype) -> None:
        case = self.case
        widths = [-(-length // case.block_size) for length in self.lens]
        num_blocks = sum(widths) + 2
        blocks = torch.randperm(num_blocks, generator=self._random)
        self.tables = blocks[-1].repeat(len(widths), max(widths) + 1)  # behind a context: a block of NaN
        shape = LayerShape(num_kv_heads=case.num_kv_heads, k_dim=case.dims[0], v_dim=case.dims[1])
        stored = LayerCache(shape, num_blocks, case.block_size, torch.empty(0))
        stored.k.fill_(float("nan"))
        stored.v.fill_(float("nan"))
        used = 0
        for seq, (width, length) in enumerate(zip(widths, self.lens, strict=True)):
            self.tables[seq, :width] = blocks[used : used + width]
            used += width
            at = torch.arange(length)
            block, offset = self.tables[seq, at // case.block_size], at % case.block_size
            stored.k[block, :, offset] = self._normal(length, case.num_kv_heads, case.dims[0])
            stored.v[block, :, offset] = self._normal(length, case.num_kv_heads, case.dims[1])
        self.k, self.v = stored.k.to(dtype).to(self.device), stored.v.to(dtype).to(self.device)

    def expected(self, is_scaled: bool) -> torch.Tensor:
        """`[T, heads, v_dim] float32` from the reference, in float32."""
        case = self.case
        shape = LayerShape(num_kv_heads=case.num_kv_heads, k_dim=case.dims[0], v_dim=case.dims[1])
        cache = LayerCache(shape, self.k.shape[0], case.block_size, torch.empty(0))
        cache.k.copy_(self.k.float() * (K_SCALE if is_scaled else 1.0))
        cache.v.copy_(self.v.float() * (V_SCALE if is_scaled else 1.0))
        out = torch.full((self.q.shape[1], self.q.shape[0], case.dims[1]), UNWRITTEN)
        variant = self.variant
        if variant.sinks is not None:
            variant = AttentionVariant(
                scaling=variant.scaling,
                sliding_window=variant.sliding_window,
                softcap=variant.softcap,
                sinks=variant.sinks.cpu(),
            )
        q = self.q.float().cpu()
        for seq, length in enumerate(self.lens):
            rows = slice(self.starts[seq], self.starts[seq + 1])
            block_ids = self.tables[seq, : -(-length // case.block_size)]
            is_padding = length == 0
            out[rows] = 0.0 if is_padding else attend_sequence(q[:, rows], cache, block_ids, length, variant)
        return out

    def bounds(self) -> dict[str, Any]:
        """What PagedBatch takes, tensors on the device and numbers."""
        new = np.array([new for _, new in self.rows], np.int32)
        parts = num_parts_of(new, np.array(self.lens, np.int32), SPLIT_LEN)
        short = new[new <= MAX_SHORT_QUERIES]
        return {
            "query_starts": self._ints(self.starts),
            "context_lens": self._ints(self.lens),
            "tables": self.tables.to(torch.int32).to(self.device),
            "part_starts": self._ints((np.cumsum(parts) - parts).tolist()),
            "num_parts": int(parts.sum()),
            "max_context_len": max(self.lens),
            "max_short_queries": int(short.max(initial=0)),
            "has_chunks": len(short) < len(new),
        }

    def _ints(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self.device)


def attend(kernels: Any, batch: Batch) -> torch.Tensor:
    """`[T, heads, v_dim]` by the kernels of a module; rows that they do not write are UNWRITTEN."""
    q, k, v = batch.q, batch.k, batch.v
    out = torch.full((q.shape[1], q.shape[0], v.shape[3]), UNWRITTEN, dtype=q.dtype, device=q.device)
    result: torch.Tensor = kernels.attend_paged(
        q,
        k,
        v,
        kernels.PagedBatch(**batch.bounds()),
        batch.variant,
        split_len=SPLIT_LEN,
        out=out,
        scales=(K_SCALE, V_SCALE) if batch.case.cache_dtype else (1.0, 1.0),
    )
    return result


def error(kernels: Any, case: Case, device: str = "cpu") -> float:
    """The largest error in tolerances: at most 1 is right. Broken numbers are infinitely wrong."""
    batch = Batch(case, torch.device(device))
    expected = batch.expected(is_scaled=case.cache_dtype is not None)
    actual = attend(kernels, batch).float().cpu()
    relative = ((actual - expected).abs() / (1.0 + expected.abs())).nan_to_num(nan=float("inf"))
    return float(relative.max()) / TOLERANCE[case.dtype]
