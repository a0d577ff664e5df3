"""How the paged attention kernels are launched for a shape: tiles, warps, stages, and how contexts are split.

Plain arithmetic and tables: needs no Triton and no device, so that it can be read and tested anywhere. None of the
numbers is measured yet; what a measurement finds goes into MEASURED and is then preferred.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]

MAX_SHORT_QUERIES = 16
"""A sequence with at most so many query tokens (decoding, verifying drafts) has its context split among programs;
one with more (a prefill chunk) has enough tiles without that. Only a sequence's own length decides."""
SPLIT_TOKENS = 512
"""Tokens of a split: the same for all contexts, models and steps, so that no batch changes the order of a sum."""
TARGET_PROGRAMS = 1024
"""Programs of a launch that fill a large GPU (132 processors of an H200, several programs on each)."""
REDUCE_SPLITS = 16
"""Splits that the reduction takes at a time."""
MIN_DOT = 16
"""The smallest side of a product of tiles."""


class LaunchConfig(msgspec.Struct, frozen=True):
    """One row of the table. block_m: query rows (tokens times the heads of a KV head); block_n: keys of a tile."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


class LaunchShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice depends on; group is query heads for each KV head, item_bytes the width of a cached number."""

    is_split: bool
    group: int
    k_dim: int
    v_dim: int
    item_bytes: int


MEASURED: dict[LaunchShape, LaunchConfig] = {}
"""Results of measurements on a device, by shape; an entry needs its device and date as a comment beside it."""

_SPLIT_BY_DIM = {
    64: LaunchConfig(16, 128, 4, 3),
    128: LaunchConfig(16, 64, 4, 3),
    256: LaunchConfig(16, 32, 4, 2),
}
_CHUNK_BY_DIM = {
    64: LaunchConfig(128, 64, 4, 3),
    128: LaunchConfig(128, 64, 8, 2),
    256: LaunchConfig(64, 32, 8, 2),
}
"""By the wider of the padded K and V dims, for numbers of at most two bytes."""
MAX_DIM = 256


def padded(dim: int) -> int:
    """The power of two, at least MIN_DOT, that holds `dim`."""
    return max(MIN_DOT, 1 << (dim - 1).bit_length())


def launch_config(shape: LaunchShape) -> LaunchConfig:
    """The measured row for this shape, else the one of the table; raises ValueError for dims beyond MAX_DIM."""
    measured = MEASURED.get(shape)
    if measured is not None:
        return measured
    widest = max(padded(shape.k_dim), padded(shape.v_dim))
    if widest > MAX_DIM:
        raise ValueError(f"head dims {shape.k_dim} and {shape.v_dim}: the kernel takes at most {MAX_DIM}")
    row = (_SPLIT_BY_DIM if shape.is_split else _CHUNK_BY_DIM)[max(64, widest)]
    block_m = max(row.block_m, padded(shape.group))
    if shape.item_bytes > 2:  # float32: the same bytes in a tile
        return LaunchConfig(min(block_m, max(32, padded(shape.group))), max(MIN_DOT, row.block_n // 2), 4, 2)
    return LaunchConfig(block_m, row.block_n, row.num_warps, row.num_stages)


def num_split_programs(num_tiles: int, num_splits: int) -> int:
    """Programs among which the splits of one tile are shared out: results do not depend on it, only the time does."""
    return max(1, min(num_splits, -(-TARGET_PROGRAMS // max(1, num_tiles))))


def num_parts_of(query_lens: IntArray, context_lens: IntArray, split_len: int = SPLIT_TOKENS) -> IntArray:
    """Parts that each sequence leaves to the reduction: one for each query token and split, 0 where there are none.

    A sliding window makes them fewer; there is room for all, as the layers of a model share one count.
    """
    num_splits = -(-context_lens // split_len)
    is_split = (query_lens <= MAX_SHORT_QUERIES) & (num_splits > 1)
    return np.where(is_split, query_lens * num_splits, 0)
