"""Sampling kernel for CPUs in numba: one row at a time, no sort of the vocabulary, noise only where it can matter.

Each float32 logit becomes an int32 `key` in the same order (+0 equals -0), so comparing, counting and bisecting are
integer work, and a row is cut into chunks of CHUNK tokens whose largest key is kept:
- top_k: the k-th largest chunk maximum bounds the k-th largest logit from below, so only chunks above it are read.
- top_p: weights and their sum in one pass, then bisection on the key until few tokens are left to sort.
- every truncation is a cut (key, token id) in one order: larger logit first, lower id first among equals.
- arg max of logit/T + noise: a chunk whose maximum cannot win with the largest noise is passed over; in the others the
  32 random bits decide which tokens are worth two logarithms. The result is the exact arg max.

All functions stand in this one file because numba's cache on disk does not see changes in other files. They know
nothing of requests or torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from batching.sampling_noise import MAX_NOISE
from batching.sampling_options import NUCLEUS_SLACK

CHUNK = 64
MAX_SORTED = 512
"""Bisection stops once this few tokens are left to sort."""

INFINITE_BITS = 0x7F800000
LAST_ID = (1 << 31) - 1
LOG2_E = 1.4426950408889634


# ---- rows


@njit(nogil=True, cache=True)
def choose_rows(floats, halves, options, scratch, results, worker, num_workers):  # type: ignore[no-untyped-def]
    """Choose for rows worker, worker + num_workers, ...; results: (token_ids, usable) [rows]."""
    rows, temperatures, top_ks, top_ps, min_ps, noise_keys = options
    vocab_size = max(floats.shape[1], halves.shape[1])
    num_chunks = (vocab_size + CHUNK - 1) // CHUNK
    keys, bits = scratch[0][worker, : num_chunks * CHUNK], scratch[1][worker, : num_chunks * CHUNK]
    weights, order = scratch[2][worker, : num_chunks * CHUNK], scratch[3][worker]
    chunk_max = scratch[4][worker, :num_chunks]
    cut = np.empty(2, dtype=np.int64)
    for row in range(worker, rows.shape[0], num_workers):
        best_key = load_row(floats, halves, rows[row], vocab_size, keys, bits, chunk_max)
        results[1][row] = -INFINITE_BITS < best_key < INFINITE_BITS
        if not results[1][row]:
            continue
        temperature = temperatures[row]
        if temperature == 0.0:
            results[0][row] = first_of_key(keys, chunk_max, best_key)
            continue
        cut[0], cut[1] = -INFINITE_BITS, LAST_ID
        num_sorted = 0
        if 0 < top_ks[row] < vocab_size:
            num_sorted = cut_top_k(keys, chunk_max, top_ks[row], order, cut)
        if top_ps[row] < 1.0:
            if num_sorted > 0:
                cut_sorted_top_p(order[:num_sorted], best_key, temperature, top_ps[row], cut)
            else:
                cut_top_p(keys, bits, weights, order, vocab_size, best_key, temperature, top_ps[row], cut)
        min_logit = -np.inf
        if min_ps[row] > 0.0:
            min_logit = value_of(best_key) + temperature * math.log(min_ps[row])
        results[0][row] = noisy_argmax(keys, chunk_max, temperature, noise_keys[row], cut, min_logit, best_key)


@njit(nogil=True, cache=True)
def logprob_rows(floats, halves, token_ids, scratch, results, worker, num_workers):  # type: ignore[no-untyped-def]
    """Log probabilities of `token_ids` and of the most probable tokens; results: (chosen, top_ids, top_logprobs)."""
    chosen, top_ids, top_logprobs = results
    num_top = top_ids.shape[1]
    vocab_size = max(floats.shape[1], halves.shape[1])
    num_chunks = (vocab_size + CHUNK - 1) // CHUNK
    keys, bits = scratch[0][worker, : num_chunks * CHUNK], scratch[1][worker, : num_chunks * CHUNK]
    weights, order = scratch[2][worker, : num_chunks * CHUNK], scratch[3][worker]
    chunk_max = scratch[4][worker, :num_chunks]
    cut = np.empty(2, dtype=np.int64)
    for row in range(worker, token_ids.shape[0], num_workers):
        best_key = load_row(floats, halves, row, vocab_size, keys, bits, chunk_max)
        total = fill_weights(bits, weights, value_of(best_key), 1.0)
        normaliser = value_of(best_key) + math.log(total)
        chosen[row] = value_of(keys[token_ids[row]]) - normaliser
        if num_top > 0:
            cut_top_k(keys, chunk_max, num_top, order, cut)
        for rank in range(num_top):
            top_ids[row, rank] = order[rank] & LAST_ID
            top_logprobs[row, rank] = value_of(-(order[rank] >> 32)) - normaliser


@njit(nogil=True, cache=True)
def load_row(floats, halves, row, vocab_size, keys, bits, chunk_max):  # type: ignore[no-untyped-def]
    """Fill keys, float bits and chunk maxima; return the largest key, or 2**31 - 1 where the row holds a NaN.

    The last chunk is padded with -inf, which is never chosen.
    """
    if floats.shape[0] > 0:
        for index in range(vocab_size):
            bits[index] = floats[row, index]
    else:
        for index in range(vocab_size):
            bits[index] = np.int32(halves[row, index]) << np.int32(16)
    for index in range(vocab_size, bits.shape[0]):
        bits[index] = np.int32(-8388608)
    best = np.int32(-LAST_ID)
    largest_magnitude = np.int32(0)
    for chunk in range(chunk_max.shape[0]):
        start = chunk * CHUNK
        largest = np.int32(-LAST_ID)
        for index in range(start, start + CHUNK):
            magnitude = np.int32(bits[index] & np.int32(0x7FFFFFFF))
            sign = np.int32(bits[index] >> np.int32(31))
            key = np.int32((magnitude ^ sign) - sign)
            keys[index] = key
            largest = max(largest, key)
            largest_magnitude = max(largest_magnitude, magnitude)
        chunk_max[chunk] = largest
        best = max(best, largest)
    return best if largest_magnitude <= INFINITE_BITS else np.int32(LAST_ID)


@njit(nogil=True, cache=True)
def value_of(key):  # type: ignore[no-untyped-def]
    """The logit of a key, as float64."""
    bits = np.int32(key) if key >= 0 else np.int32(-key) | np.int32(-2147483648)
    return np.float64(np.int32(bits).view(np.float32))


@njit(nogil=True, cache=True)
def first_of_key(keys, chunk_max, key):  # type: ignore[no-untyped-def]
    """Lowest token id with this key."""
    for chunk in range(chunk_max.shape[0]):
        if chunk_max[chunk] >= key:
            for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
                if keys[index] == key:
                    return index
    return 0


# ---- truncation: each function lowers `cut` = (key, token id) of the last token kept


@njit(nogil=True, cache=True)
def cut_top_k(keys, chunk_max, k, order, cut):  # type: ignore[no-untyped-def]
    """Cut after the k largest; the k tokens stand in `order[:k]`, best first, as (-key << 32) | token id."""
    num_chunks = chunk_max.shape[0]
    pivot = np.int64(-INFINITE_BITS)
    if k <= num_chunks:
        pivot = kth_largest(chunk_max, k)
    elif k > MAX_SORTED:
        pivot = kth_largest(keys, k)
    count = collect(keys, chunk_max, pivot, order)
    heap_sort(order, count)
    set_cut(order[k - 1], cut)
    return k


@njit(nogil=True, cache=True)
def kth_largest(keys, k):  # type: ignore[no-untyped-def]
    """The k-th largest key, by bisection on its bits."""
    low, high = np.int64(-INFINITE_BITS), np.int64(INFINITE_BITS)
    while high - low > 1:
        middle = (low + high) >> 1
        threshold = np.int32(middle)
        count = np.int32(0)
        for index in range(keys.shape[0]):
            count += np.int32(keys[index] >= threshold)
        if count >= k:
            low = middle
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def collect(keys, chunk_max, pivot, order):  # type: ignore[no-untyped-def]
    """Put every token with key >= pivot into `order`, by token id; return how many."""
    count = 0
    for chunk in range(chunk_max.shape[0]):
        if chunk_max[chunk] >= pivot:
            for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
                if keys[index] >= pivot:
                    order[count] = (-np.int64(keys[index]) << 32) | index
                    count += 1
    return count


@njit(nogil=True, cache=True)
def heap_sort(order, count):  # type: ignore[no-untyped-def]
    """Sort order[:count] ascending. numba's own sort would double the time to compile this module."""
    for start in range(count // 2 - 1, -1, -1):
        sift_down(order, start, count)
    for end in range(count - 1, 0, -1):
        order[0], order[end] = order[end], order[0]
        sift_down(order, 0, end)


@njit(nogil=True, cache=True)
def sift_down(order, root, end):  # type: ignore[no-untyped-def]
    """Restore the heap (largest on top) of order[:end] below `root`."""
    entry = order[root]
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and order[child + 1] > order[child]:
            child += 1
        if order[child] <= entry:
            break
        order[root] = order[child]
        root = child
    order[root] = entry


@njit(nogil=True, cache=True)
def set_cut(entry, cut):  # type: ignore[no-untyped-def]
    cut[0], cut[1] = -(entry >> 32), entry & LAST_ID


@njit(nogil=True, cache=True)
def cut_sorted_top_p(order, best_key, temperature, top_p, cut):  # type: ignore[no-untyped-def]
    """Cut the tokens of `order` (best first) where their cumulative probability reaches top_p."""
    best = value_of(best_key)
    total = 0.0
    for entry in order:
        total += math.exp((value_of(-(entry >> 32)) - best) / temperature)
    walk_mass(order, best, temperature, 0.0, total * (top_p - NUCLEUS_SLACK), cut)


@njit(nogil=True, cache=True)
def walk_mass(order, best, temperature, mass, target, cut):  # type: ignore[no-untyped-def]
    """Cut at the first token of `order` with which the mass reaches the target."""
    for entry in order:
        set_cut(entry, cut)
        mass += math.exp((value_of(-(entry >> 32)) - best) / temperature)
        if mass >= target:
            return


@njit(nogil=True, cache=True)
def cut_top_p(keys, bits, weights, order, vocab_size, best_key, temperature, top_p, cut):  # type: ignore[no-untyped-def]
    """Cut the whole row where its cumulative probability reaches top_p.

    Invariant: mass(key >= high) < target <= mass(key >= low). Tokens lighter than (1 - top_p) * total / vocab_size
    weigh less than 1 - top_p together, so the first `low` may pass over them.
    """
    best = value_of(best_key)
    total = fill_weights(bits, weights, best, temperature)
    target = total * (top_p - NUCLEUS_SLACK)
    lightest = total * (1.0 - top_p) / vocab_size
    low, high = np.int64(-INFINITE_BITS), np.int64(best_key) + 1
    logit = best + temperature * math.log(lightest)
    if logit > -3e38:
        low = max(low, min(np.int64(best_key), np.int64(key_of(logit))))
    mass_above = 0.0
    count_above, count = 0, count_from(keys, low)
    while high - low > 1 and count - count_above > MAX_SORTED:
        middle = (low + high) >> 1
        mass = mass_from(keys, weights, middle)
        if mass >= target:
            low, count = middle, count_from(keys, middle)
        else:
            high, mass_above, count_above = middle, mass, count_from(keys, middle)
    size = 0
    for index in range(keys.shape[0]):
        if low <= keys[index] < high:
            order[size] = (-np.int64(keys[index]) << 32) | index
            size += 1
    heap_sort(order, size)
    walk_mass(order[:size], best, temperature, mass_above, target, cut)


@njit(nogil=True, cache=True)
def key_of(logit):  # type: ignore[no-untyped-def]
    """The key of a finite logit, rounded towards a lower key."""
    bits = np.float32(logit).view(np.int32)
    key = np.int64(bits) if bits >= 0 else -np.int64(bits & np.int32(0x7FFFFFFF))
    return key - 1


@njit(nogil=True, cache=True)
def count_from(keys, threshold):  # type: ignore[no-untyped-def]
    least = np.int32(threshold)
    count = np.int32(0)
    for index in range(keys.shape[0]):
        count += np.int32(keys[index] >= least)
    return count


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def mass_from(keys, weights, threshold):  # type: ignore[no-untyped-def]
    """Sum of the weights of the tokens with key >= threshold."""
    least = np.int32(threshold)
    total = 0.0
    for start in range(0, keys.shape[0], CHUNK):
        mass = np.float32(0.0)
        for index in range(start, start + CHUNK):
            mass += weights[index] if keys[index] >= least else np.float32(0.0)
        total += np.float64(mass)
    return total


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def fill_weights(bits, weights, best, temperature):  # type: ignore[no-untyped-def]
    """weights = exp((logit - best) / T) in float32 (relative error below 1e-6); return their sum.

    exp is written out as 2**n times a polynomial of degree 6 (Taylor series of 2**f, |f| <= 1/2), which the compiler
    vectorises; libm's is a call for each token.
    """
    scale = np.float32(min(LOG2_E / temperature, 3e38))
    largest = np.float32(best)
    logits = bits.view(np.float32)
    powers = np.empty(CHUNK, dtype=np.int32)
    power_values = powers.view(np.float32)
    total = 0.0
    for start in range(0, bits.shape[0], CHUNK):
        for offset in range(CHUNK):
            exponent = max((logits[start + offset] - largest) * scale, np.float32(-126.0))
            whole = np.float32(np.floor(exponent + np.float32(0.5)))
            f = np.float32(exponent - whole)
            p = np.float32(1.5403530e-4)
            p = p * f + np.float32(1.3333558e-3)
            p = p * f + np.float32(9.6181291e-3)
            p = p * f + np.float32(5.5504109e-2)
            p = p * f + np.float32(2.4022651e-1)
            p = p * f + np.float32(6.9314718e-1)
            weights[start + offset] = p * f + np.float32(1.0)
            powers[offset] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        mass = np.float32(0.0)
        for offset in range(CHUNK):
            weights[start + offset] *= power_values[offset]
            mass += weights[start + offset]
        total += np.float64(mass)
    return total


# ---- choice


@njit(nogil=True, cache=True)
def noisy_argmax(keys, chunk_max, temperature, noise_key, cut, min_logit, best_key):  # type: ignore[no-untyped-def]
    """Arg max of logit / T + Gumbel noise over the tokens that are not cut; lowest id among equals.

    A token with logit <= m beats the score s only if its noise exceeds s - m/T = y; noise > y means
    u > exp(-exp(-y)) >= 1 - exp(-y), a bound on the random bits that costs one exp for a chunk.
    """
    bits = np.empty(CHUNK, dtype=np.uint32)
    best_score, best_id = -np.inf, -1
    first_chunk = first_of_key(keys, chunk_max, best_key) // CHUNK
    for turn in range(-1, chunk_max.shape[0]):
        chunk = first_chunk if turn < 0 else turn
        if chunk_max[chunk] < cut[0] or (turn >= 0 and chunk == first_chunk):
            continue
        needed = best_score - value_of(chunk_max[chunk]) / temperature
        if needed > MAX_NOISE:
            continue
        least = max(0.0, 4294967296.0 * (1.0 - math.exp(-needed)) - 4.0) if needed > 0.0 else 0.0
        if fill_bits(noise_key, chunk * CHUNK, bits) < least:
            continue
        for offset in range(CHUNK):
            token_id = chunk * CHUNK + offset
            key = keys[token_id]
            if bits[offset] < least or key < cut[0] or (key == cut[0] and token_id > cut[1]):
                continue
            logit = value_of(key)
            if logit < min_logit:
                continue
            score = logit / temperature - math.log(-math.log((bits[offset] + 0.5) * 2.0**-32))
            if score > best_score or (score == best_score and token_id < best_id):
                best_score, best_id = score, token_id
    return best_id


@njit(nogil=True, cache=True)
def fill_bits(noise_key, first_id, bits):  # type: ignore[no-untyped-def]
    """The random bits of CHUNK token ids (as `sampling_noise.token_bits`); return the largest."""
    key_0, key_1 = np.uint32(noise_key[0]), np.uint32(noise_key[1])
    largest = np.uint32(0)
    for offset in range(CHUNK):
        x = np.uint32(np.uint32(first_id + offset) ^ key_0)
        x = mix_32(np.uint32(mix_32(x) ^ key_1))
        bits[offset] = x
        largest = max(largest, x)
    return largest


@njit(nogil=True, cache=True, inline="always")
def mix_32(x):  # type: ignore[no-untyped-def]
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))
