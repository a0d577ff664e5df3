"""The noise is one hash on every path, and its draws look independent over seeds, positions and token ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batching.kernels.sampling_cpu import CHUNK, fill_bits
from batching.sampling_noise import MAX_NOISE, POSITION_STEP, SEED_OFFSET, gumbel_noise, row_keys, token_bits
from tests.batching import reference_sampler

NUM_DRAWS = 20_000
LOGITS = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 2.0, 0.25])
SEEDS = [0, 1, 2**32, 2**63, 2**64 - 1, 123456789012345678]


def keys_tensor(seeds: list[int], positions: list[int]) -> torch.Tensor:
    return torch.from_numpy(row_keys(seeds, positions).astype(np.int64))


def frequencies(keys: torch.Tensor) -> torch.Tensor:
    """How often each of the eight tokens of LOGITS is the arg max of logit plus noise."""
    noise = gumbel_noise(keys, torch.arange(8)[None])
    return (LOGITS + noise).argmax(dim=-1).bincount(minlength=8).double()


def chi_square(observed: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def uniforms(seeds: list[int], positions: list[int], num_tokens: int) -> torch.Tensor:
    return token_bits(keys_tensor(seeds, positions), torch.arange(num_tokens)[None]).double() / 2**32


def joint_chi_square(first: torch.Tensor, second: torch.Tensor) -> float:
    """Chi-square of the 16 x 16 table of two uniform variables against independence (255 degrees of freedom)."""
    cells = (first * 16).long() * 16 + (second * 16).long()
    observed = cells.flatten().bincount(minlength=256).double()
    return chi_square(observed, torch.full((256,), observed.sum().item() / 256, dtype=torch.float64))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("position", [0, 1, 131_071])
def test_torch_numba_and_plain_python_draw_the_same_bits(seed: int, position: int) -> None:
    keys = row_keys([seed], [position])
    numba_bits = np.empty(CHUNK, dtype=np.uint32)

    largest = fill_bits(keys[0], 640, numba_bits)
    torch_bits = token_bits(torch.from_numpy(keys.astype(np.int64)), torch.arange(640, 640 + CHUNK)[None])[0].tolist()

    assert torch_bits == numba_bits.tolist()
    assert torch_bits == [
        reference_sampler.random_bits(seed, position, token_id) for token_id in range(640, 640 + CHUNK)
    ]
    assert largest == max(torch_bits)


def test_a_negative_seed_is_its_64_bit_pattern() -> None:
    assert row_keys([-1], [3]).tolist() == row_keys([2**64 - 1], [3]).tolist()


def test_noise_is_finite_and_below_its_bound_at_both_ends_of_the_bits() -> None:
    ends = (torch.tensor([0.0, 2.0**32 - 1], dtype=torch.float64) + 0.5) * 2.0**-32
    noise = -torch.log(-torch.log(ends))

    assert noise.isfinite().all()
    assert MAX_NOISE - 0.01 < noise.max() < MAX_NOISE


@pytest.mark.parametrize(
    ("seeds", "positions"),
    [
        (list(range(NUM_DRAWS)), [5] * NUM_DRAWS),
        ([7] * NUM_DRAWS, list(range(NUM_DRAWS))),
        ([i << 32 for i in range(NUM_DRAWS)], [5] * NUM_DRAWS),
        ([i * SEED_OFFSET for i in range(NUM_DRAWS)], list(range(NUM_DRAWS))),
        ([-i * POSITION_STEP for i in range(NUM_DRAWS)], list(range(NUM_DRAWS))),
    ],
    ids=["seeds", "positions", "high words of seeds", "seeds in step", "seeds against positions"],
)
def test_frequencies_follow_the_softmax(seeds: list[int], positions: list[int]) -> None:
    observed = frequencies(keys_tensor(seeds, positions))

    # 7 degrees of freedom: 29.9 is exceeded once in ten thousand.
    assert chi_square(observed, LOGITS.double().softmax(dim=-1) * NUM_DRAWS) < 29.9


@pytest.mark.parametrize(
    ("seed_step", "position_step", "token_step"),
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1 << 32, 0, 0), (POSITION_STEP, 0, 0), (SEED_OFFSET, 0, 0)],
)
def test_neighbours_are_independent(seed_step: int, position_step: int, token_step: int) -> None:
    seeds, positions = list(range(2000)), list(range(2000, 0, -1))
    later_seeds = [seed + seed_step for seed in seeds]
    later_positions = [position + position_step for position in positions]

    first = uniforms(seeds, positions, 65)[:, :64]
    second = uniforms(later_seeds, later_positions, 65)[:, token_step : 64 + token_step]

    correlation = torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1].abs().item()

    assert correlation < 4 / first.numel() ** 0.5
    # 255 degrees of freedom: 347 is exceeded once in ten thousand.
    assert joint_chi_square(first, second) < 347


def test_no_two_rows_of_neighbouring_seeds_and_positions_share_a_key() -> None:
    seeds = [seed for seed in range(300) for _ in range(300)]
    keys = row_keys(seeds, list(range(300)) * 300)

    assert len(np.unique(keys.astype(np.uint64)[:, 0] | keys.astype(np.uint64)[:, 1] << np.uint64(32))) == 90_000
