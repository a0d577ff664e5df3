"""The sampler on the device (Triton): one token for each row of logits, without a sort and without the host.

It chooses what batching.sampler chooses with kernels.sampling_torch, which is the reference: the noise bits are the
same integers, and every comparison that decides is made on integers or in float64, as there.

- A float32 logit becomes an int32 key in the same order (+0 equals -0); all truncation is one cut (key, token id) in
  the order: larger logit first, lower id first among equals.
- top_k and top_p look for their key by counting (or weighing) the tokens above several pivots in each pass; min_p is
  one key. A row that truncates nothing passes this by.
- The noise of every token is taken in float32 first. Only tokens within MARGIN of the best so found can win, one or
  two in each chunk; their score is computed in float64.

Launches and grids depend on the bucket sizes alone; rows end early by what they read on the device. Rows of
batching.row_tables hold the options; their tokens are the history that penalties need.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batching import row_tables, sampling_noise
from batching.kernels.sampler_buffers import MAX_TOP_LOGPROBS, SamplerBuffers
from batching.kernels.triton_support import check_rows, next_power_of_two, warps_for
from batching.row_tables import RowTables
from batching.sampling_options import NUCLEUS_SLACK

HISTORY_TILE = 1024
NUM_PIVOTS = 8

_NUM_PIVOTS = tl.constexpr(NUM_PIVOTS)
_SLACK = tl.constexpr(NUCLEUS_SLACK)
_RECORD_WORDS = tl.constexpr(row_tables.RECORD_WORDS)
_NUM_TOKENS = tl.constexpr(row_tables.NUM_TOKENS)
_PROMPT_LEN = tl.constexpr(row_tables.PROMPT_LEN)
_MASK_ROW = tl.constexpr(row_tables.MASK_ROW)
_TEMPERATURE = tl.constexpr(row_tables.TEMPERATURE)
_TOP_P = tl.constexpr(row_tables.TOP_P)
_MIN_P = tl.constexpr(row_tables.MIN_P)
_PRESENCE = tl.constexpr(row_tables.PRESENCE_PENALTY)
_FREQUENCY = tl.constexpr(row_tables.FREQUENCY_PENALTY)
_SEED = tl.constexpr(row_tables.SEED)
_REPETITION = tl.constexpr(row_tables.REPETITION_PENALTY)
_TOP_K = tl.constexpr(row_tables.TOP_K)
_MIN_TOKENS = tl.constexpr(row_tables.MIN_TOKENS)
_NUM_EDITS = tl.constexpr(row_tables.NUM_EDITS)
_NUM_LOGPROBS = tl.constexpr(row_tables.NUM_LOGPROBS)
_SEED_OFFSET = tl.constexpr(sampling_noise.SEED_OFFSET)
_POSITION_STEP = tl.constexpr(sampling_noise.POSITION_STEP)

_INFINITE = tl.constexpr(0x7F800000)
_LAST = tl.constexpr(0x7FFFFFFF)
_IN_PROMPT = tl.constexpr(1 << 30)
_RAW_BROKEN = tl.constexpr(1)
_RAW_FINITE = tl.constexpr(2)
_LOWEST_WINNER = tl.constexpr(-3.5)
"""The most probable token scores at least -log(-log(2^-33)) = -3.13 above its own logit, so below this none wins."""
_MARGIN = tl.constexpr(1e-3)
"""A hundred times the error of a float32 score that is not below _LOWEST_WINNER."""


def sample(
    logits: torch.Tensor,
    rows: torch.Tensor,
    num_sampling: torch.Tensor,
    tables: RowTables,
    masks: torch.Tensor | None,
    buffers: SamplerBuffers,
) -> None:
    """Choose a token for each row; the results stand in `buffers`.

    logits `[R, at least vocab_size]` float32, bfloat16 or float16, unchanged, rows contiguous; rows `[R] int32`: the
    record of each, -1 for padding; num_sampling `[1] int32`: rows from there on only get a status; masks `[M,
    at least vocab_size / 32] int32`: bit i of word w set where token 32 * w + i is allowed (as llguidance and xgrammar
    make them), or None where no record names a mask. The position of the new token is NUM_TOKENS of its record.
    ValueError for other shapes.
    """
    num_rows, vocab_size = logits.shape[0], buffers.vocab_size
    check_rows("rows", rows, (num_rows,))
    if logits.stride(1) != 1 or logits.shape[1] < vocab_size:
        raise ValueError(f"logits have shape {tuple(logits.shape)} and strides {logits.stride()}, not {vocab_size}.")
    if masks is not None:
        check_rows("masks", masks, (None, None))
        if masks.shape[1] * 32 < vocab_size:
            raise ValueError(f"masks have {masks.shape[1]} words a row, too few for {vocab_size} tokens.")
    if num_rows > buffers.token_ids.shape[0]:
        raise ValueError(f"{num_rows} rows of logits, the buffers hold {buffers.token_ids.shape[0]}.")
    if num_rows == 0:
        return
    common = (rows, num_sampling, tables.records)
    _edit(logits, common, tables, masks, buffers)
    _choose(logits, common, buffers)
    _logprobs(logits, common, buffers)


Common = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _edit(
    logits: torch.Tensor, common: Common, tables: RowTables, masks: torch.Tensor | None, buffers: SamplerBuffers
) -> None:
    num_rows, vocab_size = logits.shape[0], buffers.vocab_size
    num_chunks = buffers.part_keys.shape[1]
    max_len, max_edits = tables.shape.max_len, tables.shape.max_edits
    _clear_counts_kernel[(num_rows, num_chunks)](
        *common, buffers.edited, buffers.raw_flags, vocab_size=vocab_size, chunk=buffers.chunk, num_warps=8
    )
    _count_tokens_kernel[(num_rows, triton.cdiv(max_len, HISTORY_TILE))](
        *common,
        tables.tokens,
        buffers.edited,
        vocab_size=vocab_size,
        chunk=buffers.chunk,
        max_len=max_len,
        tile=HISTORY_TILE,
        num_warps=4,
    )
    _edit_kernel[(num_rows, num_chunks)](
        *common,
        logits,
        logits.stride(0),
        buffers.edited if masks is None else masks,
        0 if masks is None else masks.stride(0),
        buffers.edited,
        buffers.edited.view(torch.float32),
        buffers.raw_flags,
        vocab_size=vocab_size,
        chunk=buffers.chunk,
        has_masks=masks is not None,
        num_warps=8,
    )
    if max_edits:
        tile = min(1024, next_power_of_two(max_edits))
        _add_edits_kernel[(num_rows, triton.cdiv(max_edits, tile))](
            *common,
            tables.edit_ids,
            tables.edit_values,
            buffers.edited.view(torch.float32),
            vocab_size=vocab_size,
            chunk=buffers.chunk,
            max_edits=max_edits,
            tile=tile,
            num_warps=warps_for(tile),
        )


def _choose(logits: torch.Tensor, common: Common, buffers: SamplerBuffers) -> None:
    num_rows, num_chunks = logits.shape[0], buffers.part_keys.shape[1]
    vocab_size, edited = buffers.vocab_size, buffers.edited.view(torch.float32)
    sources = (*common, logits, logits.stride(0), edited)
    chunk_tile = next_power_of_two(num_chunks)
    _largest_kernel[(num_rows, num_chunks)](
        *sources, buffers.part_keys, vocab_size=vocab_size, chunk=buffers.chunk, num_warps=8
    )
    _cut_kernel[(num_rows,)](
        *sources,
        buffers.part_keys,
        buffers.cuts,
        vocab_size=vocab_size,
        chunk=buffers.chunk,
        num_chunks=num_chunks,
        chunk_tile=chunk_tile,
        num_warps=16,
    )
    _score_kernel[(num_rows, num_chunks)](
        *sources,
        buffers.cuts,
        buffers.part_keys,
        buffers.part_scores,
        buffers.part_ids,
        vocab_size=vocab_size,
        chunk=buffers.chunk,
        num_warps=8,
    )
    _pick_kernel[(num_rows,)](
        *common,
        buffers.cuts,
        buffers.raw_flags,
        buffers.part_scores,
        buffers.part_ids,
        buffers.token_ids,
        buffers.status,
        num_chunks=num_chunks,
        chunk_tile=chunk_tile,
        num_warps=1,
    )


def _logprobs(logits: torch.Tensor, common: Common, buffers: SamplerBuffers) -> None:
    num_rows, num_chunks = logits.shape[0], buffers.part_keys.shape[1]
    _part_logprobs_kernel[(num_rows, num_chunks)](
        *common,
        logits,
        logits.stride(0),
        buffers.part_keys,
        buffers.part_sums,
        buffers.part_tops,
        vocab_size=buffers.vocab_size,
        chunk=buffers.chunk,
        max_top=MAX_TOP_LOGPROBS,
        num_warps=8,
    )
    _merge_logprobs_kernel[(num_rows,)](
        *common,
        logits,
        logits.stride(0),
        buffers.part_keys,
        buffers.part_sums,
        buffers.part_tops,
        buffers.token_ids,
        buffers.status,
        buffers.logprobs,
        buffers.top_ids,
        buffers.top_logprobs,
        num_chunks=num_chunks,
        chunk_tile=next_power_of_two(num_chunks),
        part_tile=next_power_of_two(num_chunks * MAX_TOP_LOGPROBS),
        max_top=MAX_TOP_LOGPROBS,
        num_warps=4,
    )


# ---- records


@triton.jit
def _float64(record_ptr, offset: tl.constexpr):  # type: ignore[no-untyped-def]
    return _int64(record_ptr, offset).to(tl.float64, bitcast=True)


@triton.jit
def _int64(record_ptr, offset: tl.constexpr):  # type: ignore[no-untyped-def]
    low = tl.load(record_ptr + offset).to(tl.uint32, bitcast=True).to(tl.int64)
    return (tl.load(record_ptr + offset + 1).to(tl.int64) << 32) | low


@triton.jit
def _float32(record_ptr, offset: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(record_ptr + offset).to(tl.float32, bitcast=True)


@triton.jit
def _record(rows_ptr, num_sampling_ptr, records_ptr):  # type: ignore[no-untyped-def]
    """(record of this program's row, whether the row samples); padding rows have the first record and do not sample."""
    index = tl.program_id(0)
    row = tl.load(rows_ptr + index)
    samples = (row >= 0) & (index < tl.load(num_sampling_ptr))
    return records_ptr + tl.maximum(row, 0).to(tl.int64) * _RECORD_WORDS, samples


@triton.jit
def _has_penalties(record_ptr):  # type: ignore[no-untyped-def]
    touches_output = (_float64(record_ptr, _PRESENCE) != 0.0) | (_float64(record_ptr, _FREQUENCY) != 0.0)
    return touches_output | (_float32(record_ptr, _REPETITION) != 1.0)


@triton.jit
def _is_edited(record_ptr):  # type: ignore[no-untyped-def]
    has_list = (tl.load(record_ptr + _NUM_EDITS) > 0) | (tl.load(record_ptr + _MASK_ROW) >= 0)
    return has_list | _has_penalties(record_ptr)


# ---- edits: penalties, masks, bias


@triton.jit
def _clear_counts_kernel(  # type: ignore[no-untyped-def]
    rows_ptr, num_sampling_ptr, records_ptr, counts_ptr, raw_flags_ptr, vocab_size: tl.constexpr, chunk: tl.constexpr
):
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    if tl.program_id(1) == 0:
        tl.store(raw_flags_ptr + tl.program_id(0), 0)
    if samples & _has_penalties(record_ptr):
        token_id = tl.program_id(1) * chunk + tl.arange(0, chunk)
        line_ptr = counts_ptr + tl.program_id(0).to(tl.int64) * vocab_size
        tl.store(line_ptr + token_id, tl.zeros((chunk,), tl.int32), mask=token_id < vocab_size)


@triton.jit
def _count_tokens_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    tokens_ptr,
    counts_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    max_len: tl.constexpr,
    tile: tl.constexpr,
):
    """How often each token id stands in the output, with the bit _IN_PROMPT where it stands in the prompt."""
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    position = tl.program_id(1) * tile + tl.arange(0, tile)
    num_tokens = tl.load(record_ptr + _NUM_TOKENS)
    begins_inside = tl.program_id(1) * tile < num_tokens
    if samples & begins_inside & _has_penalties(record_ptr):
        prompt_len = tl.load(record_ptr + _PROMPT_LEN)
        row = tl.load(rows_ptr + tl.program_id(0)).to(tl.int64)
        token_id = tl.load(tokens_ptr + row * max_len + position, mask=position < num_tokens, other=-1)
        is_known = (token_id >= 0) & (token_id < vocab_size)
        target_ptr = counts_ptr + tl.program_id(0).to(tl.int64) * vocab_size + token_id
        tl.atomic_add(target_ptr, tl.full((tile,), 1, tl.int32), mask=is_known & (position >= prompt_len))
        prompt_bit = tl.full((tile,), _IN_PROMPT, tl.int32)
        tl.atomic_or(target_ptr, prompt_bit, mask=is_known & (position < prompt_len))


@triton.jit
def _edit_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    masks_ptr,
    masks_stride,
    counts_ptr,
    edited_ptr,
    raw_flags_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    has_masks: tl.constexpr,
):
    """Raw logits with penalties and mask, as float32, over the counts (which are the same memory)."""
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    if samples & _is_edited(record_ptr):
        index = tl.program_id(0).to(tl.int64)
        token_id = tl.program_id(1) * chunk + tl.arange(0, chunk)
        is_inside = token_id < vocab_size
        raw = tl.load(logits_ptr + index * logits_stride + token_id, mask=is_inside, other=float("-inf"))
        logit = raw.to(tl.float32)
        is_broken = (logit != logit) | (logit == float("inf"))
        is_finite = (logit == logit) & (tl.abs(logit) != float("inf"))
        flags = tl.where(is_broken, _RAW_BROKEN, 0) + tl.where(is_finite, _RAW_FINITE, 0)
        any_broken = tl.max(flags & _RAW_BROKEN, axis=0)
        any_finite = tl.max(flags & _RAW_FINITE, axis=0)
        tl.atomic_or(raw_flags_ptr + index, any_broken | any_finite)
        if _has_penalties(record_ptr):
            count = tl.load(counts_ptr + index * vocab_size + token_id, mask=is_inside, other=0)
            repetition = _float32(record_ptr, _REPETITION)
            repeated = tl.where(logit > 0.0, tl.div_rn(logit, repetition), logit * repetition)
            logit = tl.where(count != 0, repeated, logit)
            in_output = count & (_IN_PROMPT - 1)
            penalty = _float64(record_ptr, _PRESENCE) + _float64(record_ptr, _FREQUENCY) * in_output.to(tl.float64)
            logit = tl.where(in_output != 0, logit + (-penalty).to(tl.float32), logit)
        if has_masks:
            mask_row = tl.load(record_ptr + _MASK_ROW)
            if mask_row >= 0:
                mask_ptr = masks_ptr + mask_row.to(tl.int64) * masks_stride
                word = tl.load(mask_ptr + token_id // 32, mask=is_inside, other=0)
                logit = tl.where(((word >> (token_id % 32)) & 1) != 0, logit, float("-inf"))
        tl.store(edited_ptr + index * vocab_size + token_id, logit, mask=is_inside)


@triton.jit
def _add_edits_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    edit_ids_ptr,
    edit_values_ptr,
    edited_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    max_edits: tl.constexpr,
    tile: tl.constexpr,
):
    """logit_bias, and -inf before min_tokens; atomic, as one token id may have both, and they add up in any order."""
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    edit = tl.program_id(1) * tile + tl.arange(0, tile)
    num_edits = tl.load(record_ptr + _NUM_EDITS)
    begins_inside = tl.program_id(1) * tile < num_edits
    if samples & begins_inside:
        row = tl.load(rows_ptr + tl.program_id(0)).to(tl.int64)
        num_output = tl.load(record_ptr + _NUM_TOKENS) - tl.load(record_ptr + _PROMPT_LEN)
        missing = tl.load(record_ptr + _MIN_TOKENS) - num_output
        counts = edit < num_edits
        token_id = tl.load(edit_ids_ptr + row * max_edits + edit, mask=counts, other=-1)
        value = tl.load(edit_values_ptr + row * max_edits + edit, mask=counts, other=0.0)
        # Nothing is added by a bias of 0, so that stands for what min_tokens no longer forbids.
        value = tl.where((value == float("-inf")) & (tl.zeros((tile,), tl.int32) >= missing), 0.0, value)
        counts = counts & (token_id >= 0) & (token_id < vocab_size)
        line_ptr = edited_ptr + tl.program_id(0).to(tl.int64) * vocab_size
        tl.atomic_add(line_ptr + token_id, value, mask=counts)


# ---- keys and weights


@triton.jit
def _keys(logit):  # type: ignore[no-untyped-def]
    """int32 in the order of the float32; a NaN becomes _LAST, above +inf."""
    bits = logit.to(tl.int32, bitcast=True)
    magnitude = bits & _LAST
    key = tl.where(bits < 0, -magnitude, magnitude)
    return tl.where(logit == logit, key, _LAST)


@triton.jit
def _value(key):  # type: ignore[no-untyped-def]
    """The float32 of a key."""
    return tl.where(key < 0, (-key) | (-_LAST - 1), key).to(tl.float32, bitcast=True)


@triton.jit
def _load_logits(source, token_id, vocab_size: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 logits of this program's row: edited where it has edits, else raw; -inf beyond the vocabulary.

    source: (whether the row is edited, raw logits, their stride, edited logits).
    """
    index = tl.program_id(0).to(tl.int64)
    is_inside = token_id < vocab_size
    if source[0]:
        logit = tl.load(source[3] + index * vocab_size + token_id, mask=is_inside, other=float("-inf"))
    else:
        logit = tl.load(source[1] + index * source[2] + token_id, mask=is_inside, other=float("-inf")).to(tl.float32)
    return logit


@triton.jit
def _inverse_temperature(temperature):  # type: ignore[no-untyped-def]
    """1 / T in float32, kept between the smallest and the largest number that (logit - best) can be multiplied by."""
    return tl.maximum(tl.minimum(1.0 / temperature, 3e38), 1e-37).to(tl.float32)


@triton.jit
def _relative(logit, best, inverse_temperature):  # type: ignore[no-untyped-def]
    """(logit - best) / T in float32, at most 0; relative to the best so that neither size nor T lose its digits."""
    return (logit - best) * inverse_temperature


# ---- choice


@triton.jit
def _largest_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    edited_ptr,
    part_keys_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
):
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    token_id = tl.program_id(1) * chunk + tl.arange(0, chunk)
    source = (samples & _is_edited(record_ptr), logits_ptr, logits_stride, edited_ptr)
    logit = _load_logits(source, token_id, vocab_size)
    part = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(part_keys_ptr + part, tl.max(_keys(logit), axis=0))


@triton.jit
def _cut_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    edited_ptr,
    part_keys_ptr,
    cuts_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    num_chunks: tl.constexpr,
    chunk_tile: tl.constexpr,
):
    """cuts `[R, 4]`: the largest key, then (key, token id) of the last token that top_k, top_p and min_p keep."""
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    index = tl.program_id(0)
    part_index = tl.arange(0, chunk_tile)
    part_key = tl.load(part_keys_ptr + index * num_chunks + part_index, mask=part_index < num_chunks, other=-_INFINITE)
    best_key = tl.max(part_key, axis=0)
    cut_key = tl.full((), -_INFINITE, tl.int32)
    cut_id = tl.full((), _LAST, tl.int32)
    temperature = _float64(record_ptr, _TEMPERATURE)
    is_usable = (best_key > -_INFINITE) & (best_key < _INFINITE)
    if samples & is_usable & (temperature > 0.0):
        source = (_is_edited(record_ptr), logits_ptr, logits_stride, edited_ptr)
        best = _value(best_key)
        inverse = _inverse_temperature(temperature)
        top_k = tl.load(record_ptr + _TOP_K)
        top_p = _float64(record_ptr, _TOP_P)
        min_p = _float64(record_ptr, _MIN_P)
        if (top_k > 0) & (top_k < vocab_size):
            wanted = top_k.to(tl.float64)
            key = _lowest_key(source, cut_key, cut_id, best_key, wanted, 0.0, 0.0, vocab_size, chunk, False)
            above = _mass(source, cut_key, cut_id, key + 1, 0.0, 0.0, vocab_size, chunk, False)
            cut_id = _nth_id(source, key, (wanted - above).to(tl.int32), cut_id, vocab_size, chunk)
            cut_key = key
        if top_p < 1.0:
            total = _mass(source, cut_key, cut_id, cut_key, best, inverse, vocab_size, chunk, True)
            target = total * (top_p - _SLACK)
            key = _lowest_key(source, cut_key, cut_id, best_key, target, best, inverse, vocab_size, chunk, True)
            above = _mass(source, cut_key, cut_id, key + 1, best, inverse, vocab_size, chunk, True)
            weight = tl.exp(_relative(_value(key), best, inverse)).to(tl.float64)
            # A weight of 0 can only be reached at the very end of the row: then everything down to here is kept.
            num_equal = tl.minimum(tl.ceil((target - above) / tl.maximum(weight, 1e-300)), 1e9).to(tl.int32)
            limit = tl.where(key == cut_key, cut_id, _LAST)
            cut_id = _nth_id(source, key, tl.maximum(num_equal, 1), limit, vocab_size, chunk)
            cut_key = key
        if min_p > 0.0:
            key = _min_p_key(best, temperature, min_p, best_key)
            cut_id = tl.where(key > cut_key, _LAST, cut_id)
            cut_key = tl.maximum(key, cut_key)
    tl.store(cuts_ptr + index * 4, best_key)
    tl.store(cuts_ptr + index * 4 + 1, cut_key)
    tl.store(cuts_ptr + index * 4 + 2, cut_id)


@triton.jit
def _is_kept(key, token_id, cut_key, cut_id):  # type: ignore[no-untyped-def]
    return (key > cut_key) | ((key == cut_key) & (token_id <= cut_id))


@triton.jit
def _mass(  # type: ignore[no-untyped-def]
    source,
    cut_key,
    cut_id,
    least_key,
    best,
    inverse,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    is_weighed: tl.constexpr,
):
    """Number (or weight exp((logit - best) / T)) of the kept tokens with at least this key, float64."""
    total = tl.full((), 0.0, tl.float64)
    for start in range(0, vocab_size, chunk):
        token_id = start + tl.arange(0, chunk)
        logit = _load_logits(source, token_id, vocab_size)
        key = _keys(logit)
        counts = _is_kept(key, token_id, cut_key, cut_id) & (key >= least_key) & (token_id < vocab_size)
        share = tl.exp(_relative(logit, best, inverse)) if is_weighed else tl.full((chunk,), 1.0, tl.float32)
        total += tl.sum(tl.where(counts, share, 0.0), axis=0).to(tl.float64)
    return total


@triton.jit
def _lowest_key(  # type: ignore[no-untyped-def]
    source,
    cut_key,
    cut_id,
    best_key,
    target,
    best,
    inverse,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    is_weighed: tl.constexpr,
):
    """The largest key for which the kept tokens from it on number (or weigh) at least `target`.

    Invariant: mass(key >= high) < target <= mass(key >= low), but for low = cut_key, where nothing more can be had.
    """
    low = cut_key.to(tl.int64)
    high = best_key.to(tl.int64) + 1
    step = tl.arange(0, _NUM_PIVOTS).to(tl.int64) + 1
    while high - low > 1:
        pivot = low + (high - low) * step // (_NUM_PIVOTS + 1)
        pivot_key = pivot.to(tl.int32)
        mass = tl.zeros((_NUM_PIVOTS,), tl.float64)
        for start in range(0, vocab_size, chunk):
            token_id = start + tl.arange(0, chunk)
            logit = _load_logits(source, token_id, vocab_size)
            key = _keys(logit)
            counts = _is_kept(key, token_id, cut_key, cut_id) & (token_id < vocab_size)
            share = tl.exp(_relative(logit, best, inverse)) if is_weighed else tl.full((chunk,), 1.0, tl.float32)
            share = tl.where(counts, share, 0.0)
            above = tl.where(key[:, None] >= pivot_key[None, :], share[:, None], 0.0)
            mass += tl.sum(above, axis=0).to(tl.float64)
        reached = mass >= target
        low = tl.maximum(low, tl.max(tl.where(reached, pivot, low), axis=0))
        high = tl.minimum(high, tl.min(tl.where(reached, high, pivot), axis=0))
    return low.to(tl.int32)


@triton.jit
def _nth_id(source, wanted_key, nth, limit, vocab_size: tl.constexpr, chunk: tl.constexpr):  # type: ignore[no-untyped-def]
    """The id of the nth token (from 1) with this key, or `limit` where fewer ids up to `limit` have it."""
    seen = tl.full((), 0, tl.int32)
    found = limit
    for start in range(0, vocab_size, chunk):
        token_id = start + tl.arange(0, chunk)
        key = _keys(_load_logits(source, token_id, vocab_size))
        is_equal = ((key == wanted_key) & (token_id < vocab_size)).to(tl.int32)
        rank = seen + tl.cumsum(is_equal, axis=0)
        is_nth = (is_equal == 1) & (rank == nth)
        found = tl.minimum(found, tl.min(tl.where(is_nth, token_id, _LAST), axis=0))
        seen += tl.sum(is_equal, axis=0)
    return found


@triton.jit
def _min_p_key(best, temperature, min_p, best_key):  # type: ignore[no-untyped-def]
    """The lowest key with logit / T >= best / T + log(min_p) in float64, as the reference compares.

    The logit where both are equal is found up to its last bits; the keys around it are tried.
    """
    floor = best.to(tl.float64) / temperature + tl.log(min_p)
    guess = tl.maximum(floor * temperature, -3.4e38).to(tl.float32)
    near = _keys(guess) + tl.arange(0, 16) - 8
    reaches = _value(near).to(tl.float64) / temperature >= floor
    return tl.minimum(tl.min(tl.where(reaches, near, _LAST), axis=0), best_key)


@triton.jit
def _score_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    edited_ptr,
    cuts_ptr,
    part_keys_ptr,
    part_scores_ptr,
    part_ids_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
):
    """The best float64 score of one chunk of one row and its token id: -inf and _LAST where no token can win."""
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    index = tl.program_id(0)
    part = index * tl.num_programs(1) + tl.program_id(1)
    best_key = tl.load(cuts_ptr + index * 4)
    cut_key = tl.load(cuts_ptr + index * 4 + 1)
    cut_id = tl.load(cuts_ptr + index * 4 + 2)
    part_key = tl.load(part_keys_ptr + part)
    temperature = _float64(record_ptr, _TEMPERATURE)
    best_score = tl.full((), float("-inf"), tl.float64)
    best_id = tl.full((), _LAST, tl.int32)
    is_usable = (best_key > -_INFINITE) & (best_key < _INFINITE)
    token_id = tl.program_id(1) * chunk + tl.arange(0, chunk)
    if samples & is_usable & (part_key >= cut_key):
        source = (_is_edited(record_ptr), logits_ptr, logits_stride, edited_ptr)
        logit = _load_logits(source, token_id, vocab_size)
        key = _keys(logit)
        if temperature == 0.0:
            best_score = _value(part_key).to(tl.float64)
            best_id = tl.min(tl.where(key == part_key, token_id, _LAST), axis=0)
        else:
            key_0, key_1 = _noise_keys(_int64(record_ptr, _SEED), tl.load(record_ptr + _NUM_TOKENS))
            best = _value(best_key)
            score = _relative(logit, best, _inverse_temperature(temperature))
            score += _rough_noise(_random_bits(token_id, key_0, key_1))
            is_open = _is_kept(key, token_id, cut_key, cut_id) & (token_id < vocab_size)
            score = tl.where(is_open, score, float("-inf"))
            least = tl.maximum(tl.max(score, axis=0) - _MARGIN, _LOWEST_WINNER)
            rough = tl.max(score, axis=0)
            while rough >= least:
                candidate = tl.min(tl.where(score == rough, token_id, _LAST), axis=0)
                candidate_key = tl.max(tl.where(token_id == candidate, key, -_INFINITE), axis=0)
                bits = _random_bits(candidate, key_0, key_1)
                exact = _value(candidate_key).to(tl.float64) / temperature + _exact_noise(bits)
                wins = (exact > best_score) | ((exact == best_score) & (candidate < best_id))
                best_score = tl.where(wins, exact, best_score)
                best_id = tl.where(wins, candidate, best_id)
                score = tl.where(token_id == candidate, float("-inf"), score)
                rough = tl.max(score, axis=0)
    tl.store(part_scores_ptr + part, best_score)
    tl.store(part_ids_ptr + part, best_id)


@triton.jit
def _pick_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    cuts_ptr,
    raw_flags_ptr,
    part_scores_ptr,
    part_ids_ptr,
    token_ids_ptr,
    status_ptr,
    num_chunks: tl.constexpr,
    chunk_tile: tl.constexpr,
):
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    index = tl.program_id(0)
    part_index = tl.arange(0, chunk_tile)
    is_inside = part_index < num_chunks
    score = tl.load(part_scores_ptr + index * num_chunks + part_index, mask=is_inside, other=float("-inf"))
    part_id = tl.load(part_ids_ptr + index * num_chunks + part_index, mask=is_inside, other=_LAST)
    is_best = score == tl.max(score, axis=0)
    token_id = tl.min(tl.where(is_best, part_id, _LAST), axis=0)
    best_key = tl.load(cuts_ptr + index * 4)
    # Of usable logits one always wins; whatever else may come to pass, no id beyond the vocabulary leaves here.
    has_winner = (token_id != _LAST) | (samples == 0)
    is_usable = (best_key > -_INFINITE) & (best_key < _INFINITE) & has_winner
    raw_flags = tl.load(raw_flags_ptr + index)
    is_raw_sound = tl.where(samples & _is_edited(record_ptr), raw_flags == _RAW_FINITE, is_usable)
    is_padding = tl.load(rows_ptr + index) < 0
    status = tl.where(is_padding | (is_raw_sound & is_usable), 0, tl.where(is_raw_sound, 2, 1))
    tl.store(token_ids_ptr + index, tl.where(samples & (status == 0), token_id, 0))
    tl.store(status_ptr + index, status)


# ---- noise (the formulas of batching.sampling_noise)


@triton.jit
def _noise_keys(seed, position):  # type: ignore[no-untyped-def]
    """The two 32-bit keys of (seed, position); seed int64, position int32 and not negative."""
    key = _mix_64(seed.to(tl.uint64, bitcast=True) + _SEED_OFFSET)
    key = _mix_64(key + position.to(tl.uint64) * _POSITION_STEP)
    return (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.uint32)


@triton.jit
def _random_bits(token_id, key_0, key_1):  # type: ignore[no-untyped-def]
    """The 32 random bits of each token id, uint32."""
    return _mix_32(_mix_32(token_id.to(tl.uint32) ^ key_0) ^ key_1)


@triton.jit
def _mix_64(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _mix_32(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _exact_noise(bits):  # type: ignore[no-untyped-def]
    return -tl.log(-tl.log((bits.to(tl.float64) + 0.5) * 2.3283064365386963e-10))


@triton.jit
def _rough_noise(bits):  # type: ignore[no-untyped-def]
    """-log(-log(u)) in float32, off by at most 1e-5: near u = 1 from w = 1 - u, by -log(1 - w) = w + w^2/2 + ..."""
    u = (bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    w = ((bits ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    series = w * (1.0 + w * (0.5 + w * (0.33333333 + w * (0.25 + w * (0.2 + w * 0.16666667)))))
    exponential = tl.where(w < 0.0625, series, -tl.log(tl.where(w < 0.0625, 0.5, u)))
    return -tl.log(exponential)


# ---- log probabilities of the raw logits


@triton.jit
def _part_logprobs_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    part_keys_ptr,
    part_sums_ptr,
    part_tops_ptr,
    vocab_size: tl.constexpr,
    chunk: tl.constexpr,
    max_top: tl.constexpr,
):
    """Of one chunk: the largest key, the sum of exp(logit - largest), and the most probable tokens in order.

    A token is key * 2^32 + (_LAST - id), so that the larger number goes first, and the lower id among equal logits.
    """
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    num_top = tl.load(record_ptr + _NUM_LOGPROBS)
    if samples & (num_top >= 0):
        index = tl.program_id(0).to(tl.int64)
        part = index * tl.num_programs(1) + tl.program_id(1)
        token_id = tl.program_id(1) * chunk + tl.arange(0, chunk)
        is_inside = token_id < vocab_size
        raw = tl.load(logits_ptr + index * logits_stride + token_id, mask=is_inside, other=float("-inf"))
        logit = raw.to(tl.float32)
        key = _keys(logit)
        part_key = tl.max(key, axis=0)
        # A chunk of -inf alone has no sum (0, not exp(-inf + inf)); one with +inf belongs to a row that is refused.
        is_usable = (part_key > -_INFINITE) & (part_key < _INFINITE)
        largest = tl.where(is_usable, _value(part_key), 0.0)
        tl.store(part_keys_ptr + part, part_key)
        tl.store(part_sums_ptr + part, tl.sum(tl.exp(logit - largest), axis=0))
        order = tl.where(is_inside, _order(key, token_id), -0x7FFFFFFFFFFFFFFF)
        for rank in range(max_top):
            if rank < num_top:
                top = tl.max(order, axis=0)
                tl.store(part_tops_ptr + part * max_top + rank, top)
                order = tl.where(order == top, -0x7FFFFFFFFFFFFFFF, order)


@triton.jit
def _order(key, token_id):  # type: ignore[no-untyped-def]
    return key.to(tl.int64) * 4294967296 + (token_id ^ _LAST).to(tl.int64)


@triton.jit
def _merge_logprobs_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    num_sampling_ptr,
    records_ptr,
    logits_ptr,
    logits_stride,
    part_keys_ptr,
    part_sums_ptr,
    part_tops_ptr,
    token_ids_ptr,
    status_ptr,
    logprobs_ptr,
    top_ids_ptr,
    top_logprobs_ptr,
    num_chunks: tl.constexpr,
    chunk_tile: tl.constexpr,
    part_tile: tl.constexpr,
    max_top: tl.constexpr,
):
    record_ptr, samples = _record(rows_ptr, num_sampling_ptr, records_ptr)
    num_top = tl.load(record_ptr + _NUM_LOGPROBS)
    index = tl.program_id(0).to(tl.int64)
    if samples & (num_top >= 0) & (tl.load(status_ptr + index) == 0):
        part_index = tl.arange(0, chunk_tile)
        is_part = part_index < num_chunks
        part_key = tl.load(part_keys_ptr + index * num_chunks + part_index, mask=is_part, other=-_INFINITE)
        part_sum = tl.load(part_sums_ptr + index * num_chunks + part_index, mask=is_part, other=0.0)
        largest = _value(tl.max(part_key, axis=0))
        normaliser = largest + tl.log(tl.sum(part_sum * tl.exp(_value(part_key) - largest), axis=0))
        token_id = tl.load(token_ids_ptr + index)
        chosen = tl.load(logits_ptr + index * logits_stride + token_id).to(tl.float32)
        tl.store(logprobs_ptr + index, chosen - normaliser)
        entry = tl.arange(0, part_tile)
        is_entry = (entry < num_chunks * max_top) & (entry % max_top < num_top)
        tops_ptr = part_tops_ptr + index * num_chunks * max_top
        order = tl.load(tops_ptr + entry, mask=is_entry, other=-0x7FFFFFFFFFFFFFFF)
        for rank in range(max_top):
            top = tl.max(order, axis=0)
            is_found = (rank < num_top) & (top != -0x7FFFFFFFFFFFFFFF)
            top_key = (top >> 32).to(tl.int32)
            top_id = (top & 0xFFFFFFFF).to(tl.int32) ^ _LAST
            tl.store(top_ids_ptr + index * max_top + rank, tl.where(is_found, top_id, -1))
            logprob = tl.where(is_found, _value(top_key) - normaliser, float("-inf"))
            tl.store(top_logprobs_ptr + index * max_top + rank, logprob)
            order = tl.where(order == top, -0x7FFFFFFFFFFFFFFF, order)
