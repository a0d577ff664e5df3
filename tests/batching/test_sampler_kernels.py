"""The numba kernel chooses the same tokens as the torch kernel on vocabularies that take each of its paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batching.kernels.sampling_torch import TorchSampling
from batching.sampling_noise import row_keys
from batching.sampling_options import RowOptions
from tests.batching.sampler_cases import make_kernel

NUM_ROWS = 12


def make_options(temperature: float, top_k: int, top_p: float, min_p: float) -> RowOptions:
    return RowOptions(
        rows=np.arange(NUM_ROWS)[::-1].copy(),
        temperature=np.full(NUM_ROWS, temperature),
        top_k=np.full(NUM_ROWS, top_k),
        top_p=np.full(NUM_ROWS, top_p),
        min_p=np.full(NUM_ROWS, min_p),
        keys=row_keys(range(NUM_ROWS), [11] * NUM_ROWS),
    )


def make_wide_logits(shape: str, vocab_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(NUM_ROWS, vocab_size, generator=generator)
    return {
        "flat": logits * 0.1,
        "normal": logits * 3,
        "peaked": logits * 12,
        "tied": (logits * 2).round(),
        "equal": torch.zeros_like(logits),
        "masked": logits.masked_fill(logits < 1.5, float("-inf")),
    }[shape]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", ["flat", "normal", "peaked", "tied", "equal", "masked"])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [
        (0, 1.0, 0.0),
        (0, 0.95, 0.0),
        (0, 0.2, 0.0),
        (50, 0.95, 0.0),
        (3, 1.0, 0.1),
        (700, 0.9, 0.0),
        (2900, 0.5, 0.02),
        (0, 0.99, 0.3),
    ],
)
def test_numba_chooses_as_torch(dtype: torch.dtype, shape: str, top_k: int, top_p: float, min_p: float) -> None:
    logits = make_wide_logits(shape, 3001).to(dtype)
    options = make_options(0.8, top_k, top_p, min_p)

    assert make_kernel("numba", 3001).choose(logits, options) == TorchSampling().choose(logits, options)


@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 4096])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 50.0])
def test_numba_chooses_as_torch_at_the_borders_of_its_chunks(vocab_size: int, temperature: float) -> None:
    logits = make_wide_logits("normal", vocab_size)
    options = make_options(temperature, 2, 0.9, 0.0)

    assert make_kernel("numba", vocab_size).choose(logits, options) == TorchSampling().choose(logits, options)


def test_threads_do_not_change_what_is_chosen() -> None:
    logits = make_wide_logits("normal", 120_000)
    options = make_options(0.8, 0, 0.95, 0.0)

    chosen = make_kernel("numba", 120_000, num_threads=3).choose(logits, options)

    assert chosen == make_kernel("numba", 120_000, num_threads=1).choose(logits, options)


@pytest.mark.parametrize("shape", ["normal", "tied", "equal"])
@pytest.mark.parametrize("num_top", [0, 1, 20])
def test_log_probabilities_agree_and_name_lower_ids_first_among_equals(shape: str, num_top: int) -> None:
    logits = make_wide_logits(shape, 3001)
    token_ids = list(range(NUM_ROWS))

    fast_chosen, fast_ids, fast_top = make_kernel("numba", 3001).logprobs(logits, token_ids, num_top)
    chosen, ids, top = TorchSampling().logprobs(logits, token_ids, num_top)

    assert fast_ids == ids
    assert fast_chosen == pytest.approx(chosen, abs=2e-5)
    assert np.array(fast_top) == pytest.approx(np.array(top), abs=2e-5)


def test_torch_takes_large_batches_in_blocks_with_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, options = make_wide_logits("normal", 3001), make_options(0.8, 50, 0.9, 0.0)
    whole = TorchSampling().choose(logits, options)
    monkeypatch.setattr("batching.kernels.sampling_torch.MAX_BLOCK_ELEMENTS", 7000)

    assert TorchSampling().choose(logits, options) == whole


def test_negative_zero_equals_zero() -> None:
    logits = torch.tensor([[-0.0, 0.0, -1.0]]).repeat(NUM_ROWS, 1)
    options = make_options(1.0, 1, 1.0, 0.0)

    assert make_kernel("numba", 3).choose(logits, options) == ([0] * NUM_ROWS, [True] * NUM_ROWS)
    assert TorchSampling().choose(logits, options) == ([0] * NUM_ROWS, [True] * NUM_ROWS)


def test_strided_logits_are_read_in_place() -> None:
    logits = make_wide_logits("normal", 300)
    options = make_options(0.8, 0, 1.0, 0.0)

    padded = torch.nn.functional.pad(logits, (0, 20), value=99.0)[:, :300]

    assert make_kernel("numba", 300).choose(padded, options) == make_kernel("numba", 300).choose(logits, options)
