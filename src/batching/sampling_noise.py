"""Counter-based Gumbel noise: a pure function of (seed, position, token id), the same on every device and path.

There is no state to carry, save or restore: a sequence draws the same noise alone, among others, after preemption and
on any worker. The hash is integer arithmetic only, so its 32 bits are identical in torch, in numba and in plain
Python. The two logarithms are taken in float64, where libraries differ by one unit in the last place (1e-16) at most:
two paths choose differently only if the two best scores are that close.

This module knows nothing of logits or requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

SEED_OFFSET = 0x9E3779B97F4A7C15
POSITION_STEP = 0xD1342543DE82EF95
MASK_64 = (1 << 64) - 1
MASK_32 = (1 << 32) - 1

MAX_NOISE = 22.88
"""Above the largest value that 32 random bits give: -log(-log(1 - 2**-33)) = 22.874."""


def row_keys(seeds: Sequence[int], positions: Sequence[int]) -> npt.NDArray[np.uint32]:
    """Hash each (seed, position) to the two 32-bit keys of its noise row: [rows, 2].

    The seed is mixed before the position is added, so that no simple relation between two seeds (adjacent, or apart by
    a multiple of some constant) makes one row repeat another.
    """
    seed = np.array([value & MASK_64 for value in seeds], dtype=np.uint64)
    position = np.array([value & MASK_64 for value in positions], dtype=np.uint64)
    key = _mix_64(_mix_64(seed + np.uint64(SEED_OFFSET)) + position * np.uint64(POSITION_STEP))
    return np.stack((key & np.uint64(MASK_32), key >> np.uint64(32)), axis=1).astype(np.uint32)


def gumbel_noise(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise of each token id.

    keys: [rows, 2] int64 (the two words of `row_keys`); token_ids: [rows or 1, n] int64; result: [rows, n] float64.
    """
    bits = token_bits(keys, token_ids)
    uniform = (bits.to(torch.float64) + 0.5) * 2.0**-32
    return -torch.log(-torch.log(uniform))


def token_bits(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """The 32 random bits of each token id as int64 in [0, 2**32); shapes as in `gumbel_noise`."""
    return _mix_32(_mix_32(token_ids ^ keys[:, 0:1]) ^ keys[:, 1:2])


def _mix_64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection in which each bit reaches every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mix_32(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit finaliser of the Murmur3 form, constants of low bias by Wellons (2018); int64 in [0, 2**32)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK_32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK_32
    return x ^ (x >> 16)
