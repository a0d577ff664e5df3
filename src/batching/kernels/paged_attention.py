"""Paged attention in Triton: decoding, verification of drafts and prefill chunks, over the block tables of one batch.

A program takes one tile: some query tokens of one sequence times the query heads of one KV head (so that these share
every key that is read), against the keys up to the tile's last position. It reads tiles of keys at multiples of
block_n from the start of the context and keeps a running softmax: Milakov and Gimelshein, "Online normalizer
calculation for softmax", arXiv:1805.02867, in the form of FlashAttention, arXiv:2205.14135. Sequences of few query
tokens have their context cut at multiples of split_len, and a second kernel adds up the parts (Flash-Decoding,
https://pytorch.org/blog/flash-decoding/). As all cuts are at fixed positions, the result of a row depends neither on
the other rows of the batch nor on the size of the grid.

All lengths are read on the device: for given bounds the grids are the same, so that a step can be captured as a graph.

Exponentials are powers of two: scores are kept times log2(e). Knows nothing of steps or layers. What runs it in
Triton's interpreter sees float32 products, because the interpreter multiplies bfloat16 wrongly.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
import triton
import triton.language as tl

from batching.attention.reference import AttentionVariant
from batching.kernels.paged_attention_config import (
    MAX_SHORT_QUERIES,
    REDUCE_SPLITS,
    SPLIT_TOKENS,
    LaunchConfig,
    LaunchShape,
    launch_config,
    num_split_programs,
    padded,
)

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _find_sequence(query_starts: tl.tensor, num_seqs: tl.tensor, tile: tl.tensor, block_q: tl.constexpr) -> tl.tensor:
    """The sequence of a tile: sequence i begins with tile query_starts[i] // block_q + i, which leaves it enough."""
    low = 0
    high = num_seqs
    while low < high:
        middle = (low + high) // 2
        if tl.load(query_starts + middle) // block_q + middle <= tile:
            low = middle + 1
        else:
            high = middle
    return low - 1


@triton.jit
def _splits_of(
    context_len: tl.tensor,
    query_len: tl.tensor,
    window: tl.tensor,
    split_len: tl.constexpr,
    has_window: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """(first split, number of splits, at least 1) that the queries of a sequence look at."""
    first = 0
    if has_window:
        first = tl.maximum(context_len - query_len - window + 1, 0) // split_len
    return first, tl.maximum((context_len + split_len - 1) // split_len - first, 1)


@triton.jit
def _finish(
    mixed: tl.tensor,
    row_max: tl.tensor,
    row_sum: tl.tensor,
    sinks: tl.tensor,
    head: tl.tensor,
    is_row: tl.tensor,
    v_scale: tl.tensor,
    has_sinks: tl.constexpr,
) -> tl.tensor:
    """The attention of finished sums: mixed / row_sum, with the sink's share; zeros where a row saw no key."""
    if has_sinks:
        sink = tl.load(sinks + head, mask=is_row, other=0.0).to(tl.float32) * LOG2E
        top = tl.maximum(row_max, sink)
        top = tl.where(top == float("-inf"), 0.0, top)
        share = tl.exp2(row_max - top)
        row_sum = row_sum * share + tl.exp2(sink - top)
        mixed = mixed * share[:, None]
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)
    return mixed * (v_scale / row_sum)[:, None]


@triton.jit
def _attend_keys(
    queries: tl.tensor,
    position: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    kv_head: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    score_scale: tl.tensor,
    window: tl.tensor,
    softcap: tl.tensor,
    num_kv_heads: tl.constexpr,
    block_size: tl.constexpr,
    k_dim: tl.constexpr,
    v_dim: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    block_v: tl.constexpr,
    has_window: tl.constexpr,
    has_softcap: tl.constexpr,
    compute: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """The queries over the keys from `begin` to `end`: (mixed values, maximum of scores * log2(e), sum of weights).

    queries `[block_m, block_k]` at `position [block_m]`; the sums are float32 and relative to the maximum, which is
    -inf for rows that see none of the keys. Slots outside are not read: they may hold broken numbers.
    """
    k_dims = tl.arange(0, block_k)
    v_dims = tl.arange(0, block_v)
    row_max = tl.full([block_m], float("-inf"), tl.float32)
    row_sum = tl.full([block_m], 0.0, tl.float32)
    mixed = tl.full([block_m, block_v], 0.0, tl.float32)
    for start in range(begin // block_n * block_n, end, block_n):
        column = start + tl.arange(0, block_n)
        is_column = (column >= begin) & (column < end)
        block = tl.load(table + column // block_size, mask=is_column, other=0).to(tl.int64)
        slot = (block * num_kv_heads + kv_head) * block_size + column % block_size
        keys = tl.load(
            k_cache + slot[None, :] * k_dim + k_dims[:, None],
            mask=is_column[None, :] & (k_dims < k_dim)[:, None],
            other=0.0,
        )
        scores = tl.dot(queries, keys.to(compute), input_precision="ieee")
        if has_softcap:
            # tanh(x) = 1 - 2 / (exp(2 x) + 1), right also where exp overflows
            grown = tl.exp2(scores * (score_scale / softcap * 2.0 * LOG2E))
            scores = softcap * LOG2E * (1.0 - 2.0 / (grown + 1.0))
        else:
            scores = scores * (score_scale * LOG2E)
        is_seen = (column[None, :] <= position[:, None]) & is_column[None, :]
        if has_window:
            is_seen = is_seen & (column[None, :] > position[:, None] - window)
        scores = tl.where(is_seen, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # A row that has seen no key yet: -inf - -inf is not a number
        origin = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp2(scores - origin[:, None])
        rescale = tl.exp2(row_max - origin)
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        values = tl.load(
            v_cache + slot[:, None] * v_dim + v_dims[None, :],
            mask=is_column[:, None] & (v_dims < v_dim)[None, :],
            other=0.0,
        )
        mixed = tl.dot(weights.to(compute), values.to(compute), mixed * rescale[:, None], input_precision="ieee")
        row_max = new_max
    return mixed, row_max, row_sum


@triton.jit(do_not_specialize=["table_stride", "num_seqs", "tiles_per_seq", "window"])
def _attend(
    out: tl.tensor,
    part_mixed: tl.tensor,
    part_max: tl.tensor,
    part_sum: tl.tensor,
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    tables: tl.tensor,
    query_starts: tl.tensor,
    context_lens: tl.tensor,
    part_starts: tl.tensor,
    sinks: tl.tensor,
    q_token_stride: tl.tensor,
    q_head_stride: tl.tensor,
    table_stride: tl.tensor,
    num_seqs: tl.tensor,
    tiles_per_seq: tl.tensor,
    score_scale: tl.tensor,
    v_scale: tl.tensor,
    window: tl.tensor,
    softcap: tl.tensor,
    num_kv_heads: tl.constexpr,
    group: tl.constexpr,
    block_size: tl.constexpr,
    k_dim: tl.constexpr,
    v_dim: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    block_v: tl.constexpr,
    split_len: tl.constexpr,
    max_short_queries: tl.constexpr,
    is_split: tl.constexpr,
    has_window: tl.constexpr,
    has_softcap: tl.constexpr,
    has_sinks: tl.constexpr,
    compute: tl.constexpr,
) -> None:
    """Grid: (tiles, KV heads, programs that share the splits). See attend_paged for the tensors.

    With is_split the sequences of at most max_short_queries query tokens are served, without it the others.
    """
    block_q: tl.constexpr = block_m // group
    kv_head = tl.program_id(1)
    if is_split:
        seq = tl.program_id(0) // tiles_per_seq
        first_query = tl.program_id(0) % tiles_per_seq * block_q
        first_row = tl.load(query_starts + seq)
        query_len = tl.load(query_starts + seq + 1) - first_row
        is_ours = query_len <= max_short_queries
    else:
        seq = _find_sequence(query_starts, num_seqs, tl.program_id(0), block_q)
        first_row = tl.load(query_starts + seq)
        first_query = (tl.program_id(0) - first_row // block_q - seq) * block_q
        query_len = tl.load(query_starts + seq + 1) - first_row
        is_ours = query_len > max_short_queries
    if (first_query >= query_len) | (is_ours == 0):
        return
    context_len = tl.load(context_lens + seq)
    table = tables + seq.to(tl.int64) * table_stride

    rows = tl.arange(0, block_m)
    query = first_query + rows // group
    head = kv_head * group + rows % group
    is_row = (rows < block_q * group) & (query < query_len)
    position = context_len - query_len + query
    token = (first_row + query).to(tl.int64)
    k_dims = tl.arange(0, block_k)
    queries = tl.load(
        q + (token * q_token_stride + head.to(tl.int64) * q_head_stride)[:, None] + k_dims[None, :],
        mask=is_row[:, None] & (k_dims < k_dim)[None, :],
        other=0.0,
    ).to(compute)
    v_dims = tl.arange(0, block_v)
    is_out = is_row[:, None] & (v_dims < v_dim)[None, :]
    out_at = out + ((token * (num_kv_heads * group) + head) * v_dim)[:, None] + v_dims[None, :]

    begin = 0
    if has_window:
        begin = tl.maximum(context_len - query_len + first_query - window + 1, 0)
    end = context_len - query_len + tl.minimum(first_query + block_q, query_len)
    if is_split:
        first_split, num_splits = _splits_of(context_len, query_len, window, split_len, has_window)
        part_start = tl.load(part_starts + seq).to(tl.int64)
        for index in range(tl.program_id(2), num_splits, tl.num_programs(2)):
            split_start = (first_split + index) * split_len
            mixed, row_max, row_sum = _attend_keys(
                queries, position, k_cache, v_cache, table, kv_head,
                tl.maximum(begin, split_start), tl.minimum(end, split_start + split_len),
                score_scale, window, softcap,
                num_kv_heads, block_size, k_dim, v_dim, block_m, block_n, block_k, block_v,
                has_window, has_softcap, compute,
            )  # fmt: skip
            if num_splits == 1:
                result = _finish(mixed, row_max, row_sum, sinks, head, is_row, v_scale, has_sinks)
                tl.store(out_at, result.to(out.dtype.element_ty), mask=is_out)
            else:
                part = (part_start + query * num_splits + index) * (num_kv_heads * group) + head
                tl.store(part_max + part, row_max, mask=is_row)
                tl.store(part_sum + part, row_sum, mask=is_row)
                tl.store(part_mixed + part[:, None] * v_dim + v_dims[None, :], mixed, mask=is_out)
    else:
        mixed, row_max, row_sum = _attend_keys(
            queries, position, k_cache, v_cache, table, kv_head, begin, end, score_scale, window, softcap,
            num_kv_heads, block_size, k_dim, v_dim, block_m, block_n, block_k, block_v,
            has_window, has_softcap, compute,
        )  # fmt: skip
        result = _finish(mixed, row_max, row_sum, sinks, head, is_row, v_scale, has_sinks)
        tl.store(out_at, result.to(out.dtype.element_ty), mask=is_out)


@triton.jit(do_not_specialize=["window"])
def _reduce(
    out: tl.tensor,
    part_mixed: tl.tensor,
    part_max: tl.tensor,
    part_sum: tl.tensor,
    query_starts: tl.tensor,
    context_lens: tl.tensor,
    part_starts: tl.tensor,
    sinks: tl.tensor,
    v_scale: tl.tensor,
    window: tl.tensor,
    num_heads: tl.constexpr,
    v_dim: tl.constexpr,
    block_v: tl.constexpr,
    block_s: tl.constexpr,
    split_len: tl.constexpr,
    max_short_queries: tl.constexpr,
    has_window: tl.constexpr,
    has_sinks: tl.constexpr,
) -> None:
    """Grid: (sequences, query heads). Adds up what _attend left of every sequence that has several splits."""
    seq = tl.program_id(0)
    first_row = tl.load(query_starts + seq)
    query_len = tl.load(query_starts + seq + 1) - first_row
    _, num_splits = _splits_of(tl.load(context_lens + seq), query_len, window, split_len, has_window)
    if (query_len > max_short_queries) | (num_splits == 1):
        return
    head = tl.program_id(1) + tl.arange(0, 1)
    part_start = tl.load(part_starts + seq).to(tl.int64)
    v_dims = tl.arange(0, block_v)
    for query in range(0, query_len):
        row_max = tl.full([1], float("-inf"), tl.float32)
        row_sum = tl.full([1], 0.0, tl.float32)
        mixed = tl.full([1, block_v], 0.0, tl.float32)
        for start in range(0, num_splits, block_s):
            split = start + tl.arange(0, block_s)
            is_split = split < num_splits
            part = (part_start + query * num_splits + split) * num_heads + head
            maxima = tl.load(part_max + part, mask=is_split, other=float("-inf"))
            sums = tl.load(part_sum + part, mask=is_split, other=0.0)
            parts = tl.load(
                part_mixed + part[:, None] * v_dim + v_dims[None, :],
                mask=is_split[:, None] & (v_dims < v_dim)[None, :],
                other=0.0,
            )
            # Never -inf: a query sees a key in one of the first two splits, as short queries end close to each other
            new_max = tl.maximum(row_max, tl.max(maxima, 0))
            weights = tl.exp2(maxima - new_max)
            rescale = tl.exp2(row_max - new_max)
            row_sum = row_sum * rescale + tl.sum(weights * sums, 0)
            mixed = mixed * rescale[:, None] + tl.sum(weights[:, None] * parts, 0)[None, :]
            row_max = new_max
        result = _finish(mixed, row_max, row_sum, sinks, head, head >= 0, v_scale, has_sinks)
        token = (first_row + query).to(tl.int64) + tl.arange(0, 1)
        out_at = out + ((token * num_heads + head) * v_dim)[:, None] + v_dims[None, :]
        tl.store(out_at, result.to(out.dtype.element_ty), mask=(v_dims < v_dim)[None, :])


class PagedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of a packed batch stand, and bounds that are known without asking the device.

    The tensors are int32, contiguous and on the device of the cache. A sequence of no query tokens is padding; so is
    one of query tokens and context_len 0, whose rows become zeros. Rows behind the last sequence are not written.
    """

    query_starts: torch.Tensor
    """`[sequences + 1]`: the first row of each sequence, then the number of rows."""
    context_lens: torch.Tensor
    """`[sequences]`: tokens of each sequence in the cache, those of this batch included."""
    tables: torch.Tensor
    """`[sequences, max_blocks]`: the blocks of each sequence; entries behind its context are not read."""
    part_starts: torch.Tensor
    """`[sequences]`: where the parts of a short sequence begin, counted as in num_parts_of."""
    num_parts: int
    """Parts of all sequences together; each takes 4 * q_heads * (v_dim + 2) bytes on the device."""
    max_context_len: int
    """No context is longer."""
    max_short_queries: int
    """No short sequence (of at most MAX_SHORT_QUERIES query tokens) has more of them; 0: there is none."""
    has_chunks: bool
    """Some sequence is longer than that."""


def attend_paged(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: PagedBatch,
    variant: AttentionVariant,
    *,
    split_len: int = SPLIT_TOKENS,
    out: torch.Tensor | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:
    """Attention of all rows of a batch whose K and V are cached. q `[q_heads, T, k_dim]` -> out `[T, q_heads, v_dim]`.

    k_cache, v_cache `[num_blocks, kv_heads, block_size, dim]`, contiguous, of the type of q or of a narrower one
    (float8_e4m3fn needs compute capability 8.9); the scales multiply what they hold. split_len, in tokens,
    is a multiple of 128 that must not change from step to step, as the last bits depend on it. `out` may be given,
    contiguous. Raises ValueError for shapes that the kernels cannot take. Nothing waits for the device.
    """
    _check(q, k_cache, v_cache, split_len)
    if out is None:
        out = q.new_zeros(q.shape[1], q.shape[0], v_cache.shape[3])
    launch = _Launch(q, k_cache, v_cache, out, batch, variant, split_len)
    if batch.max_short_queries:
        launch.short_sequences(scales)
    if batch.has_chunks:
        launch.chunks(scales)
    return out


def _check(q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, split_len: int) -> None:
    if q.stride(2) != 1 or not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise ValueError(f"q must have adjacent numbers (stride {q.stride(2)}, not 1) and the caches be contiguous")
    if q.shape[0] % k_cache.shape[1] or q.shape[2] != k_cache.shape[3]:
        raise ValueError(f"q {tuple(q.shape)} does not fit to K {tuple(k_cache.shape)}")
    if split_len % 128:
        raise ValueError(f"split_len is {split_len}; it must be a multiple of 128, the widest tile of keys")


class _Launch:
    """One call: the arguments that its launches share."""

    def __init__(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        out: torch.Tensor,
        batch: PagedBatch,
        variant: AttentionVariant,
        split_len: int,
    ) -> None:
        self.q, self.k_cache, self.v_cache, self.out = q, k_cache, v_cache, out
        self.batch, self.variant, self.split_len = batch, variant, split_len
        self.num_seqs = batch.context_lens.shape[0]
        self.num_kv_heads = k_cache.shape[1]
        self.group = q.shape[0] // self.num_kv_heads
        self.num_splits = -(-batch.max_context_len // split_len)

    def short_sequences(self, scales: tuple[float, float]) -> None:
        """One launch, and a second one where a context may have several splits."""
        config = self._config(is_split=True)
        tiles_per_seq = -(-self.batch.max_short_queries // (config.block_m // self.group))
        num_tiles = self.num_seqs * tiles_per_seq
        programs = num_split_programs(num_tiles * self.num_kv_heads, self.num_splits)
        parts = self._parts(self.batch.num_parts if self.num_splits > 1 else 0)
        self._attend((num_tiles, self.num_kv_heads, programs), config, parts, tiles_per_seq, scales)
        if self.num_splits > 1:
            self._reduce(parts, scales[1])

    def chunks(self, scales: tuple[float, float]) -> None:
        """One launch; its grid has room for any division of the rows into sequences."""
        config = self._config(is_split=False)
        num_tiles = self.q.shape[1] // (config.block_m // self.group) + self.num_seqs
        self._attend((num_tiles, self.num_kv_heads, 1), config, self._parts(0), 0, scales)

    def _config(self, *, is_split: bool) -> LaunchConfig:
        shape = LaunchShape(
            is_split=is_split,
            group=self.group,
            k_dim=self.k_cache.shape[3],
            v_dim=self.v_cache.shape[3],
            item_bytes=max(self.q.dtype.itemsize, self.k_cache.dtype.itemsize),
        )
        return launch_config(shape)

    def _parts(self, num_parts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Room for mixed values `[parts, q_heads, v_dim]`, maxima and sums `[parts, q_heads]`, all float32."""
        num_rows = max(1, num_parts) * self.q.shape[0]
        return (
            torch.empty(num_rows * self.v_cache.shape[3], dtype=torch.float32, device=self.q.device),
            torch.empty(num_rows, dtype=torch.float32, device=self.q.device),
            torch.empty(num_rows, dtype=torch.float32, device=self.q.device),
        )

    def _attend(
        self,
        grid: tuple[int, int, int],
        config: LaunchConfig,
        parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        tiles_per_seq: int,
        scales: tuple[float, float],
    ) -> None:
        variant, batch = self.variant, self.batch
        _attend[grid](
            self.out,
            *parts,
            self.q,
            self.k_cache,
            self.v_cache,
            batch.tables,
            batch.query_starts,
            batch.context_lens,
            batch.part_starts,
            self.out if variant.sinks is None else variant.sinks,
            self.q.stride(1),
            self.q.stride(0),
            batch.tables.stride(0),
            self.num_seqs,
            tiles_per_seq,
            variant.scaling * scales[0],
            scales[1],
            variant.sliding_window or 0,
            variant.softcap or 1.0,
            num_kv_heads=self.num_kv_heads,
            group=self.group,
            block_size=self.k_cache.shape[2],
            k_dim=self.k_cache.shape[3],
            v_dim=self.v_cache.shape[3],
            block_m=config.block_m,
            block_n=config.block_n,
            block_k=padded(self.k_cache.shape[3]),
            block_v=padded(self.v_cache.shape[3]),
            split_len=self.split_len,
            max_short_queries=MAX_SHORT_QUERIES,
            is_split=tiles_per_seq > 0,
            has_window=variant.sliding_window is not None,
            has_softcap=variant.softcap is not None,
            has_sinks=variant.sinks is not None,
            compute=_compute_type(self.q.dtype),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )

    def _reduce(self, parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor], v_scale: float) -> None:
        variant, batch = self.variant, self.batch
        _reduce[(self.num_seqs, self.q.shape[0])](
            self.out,
            *parts,
            batch.query_starts,
            batch.context_lens,
            batch.part_starts,
            self.out if variant.sinks is None else variant.sinks,
            v_scale,
            variant.sliding_window or 0,
            num_heads=self.q.shape[0],
            v_dim=self.v_cache.shape[3],
            block_v=padded(self.v_cache.shape[3]),
            block_s=REDUCE_SPLITS,
            split_len=self.split_len,
            max_short_queries=MAX_SHORT_QUERIES,
            has_window=variant.sliding_window is not None,
            has_sinks=variant.sinks is not None,
            num_warps=4,
        )


def _compute_type(dtype: torch.dtype) -> Any:
    """The type of the factors of products: that of q, but float32 in the interpreter."""
    if not isinstance(_find_sequence, triton.JITFunction):
        return tl.float32
    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]
