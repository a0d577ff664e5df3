"""Options mean what they mean in transformers: its logits processors plus our noise give our tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from batching.sampling_noise import gumbel_noise, row_keys
from contracts.sampling import SamplingParams
from tests.batching.sampler_cases import make_row, make_sampler

VOCAB_SIZE, NUM_ROWS = 500, 64
PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}


@pytest.mark.parametrize("kernel", ["torch", "numba"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.9},
        {"top_p": 0.1},
        {"min_p": 0.2},
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.7},
        {"temperature": 1.5, "top_k": 40, "top_p": 0.8},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05},
        {"repetition_penalty": 1.2, "temperature": 2.0, "top_p": 0.7, "min_p": 0.01},
    ],
    ids=str,
)
def test_tokens_equal_those_of_transformers_processors(kernel: str, options: dict[str, float]) -> None:
    logits = torch.randn(NUM_ROWS, VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 3
    sampling = SamplingParams(**options)  # type: ignore[arg-type]
    rows = [make_row(sampling, seed=seed, position=20 + seed) for seed in range(NUM_ROWS)]
    history = torch.tensor([[0, 2, 2, 9, 2, 3, 3, 2]] * NUM_ROWS)
    processors = LogitsProcessorList([PROCESSORS[name](options[name]) for name in PROCESSORS if name in options])
    keys = row_keys(range(NUM_ROWS), range(20, 20 + NUM_ROWS)).astype("int64")

    scores = processors(history, logits.clone()).double()
    expected = (scores + gumbel_noise(torch.from_numpy(keys), torch.arange(VOCAB_SIZE)[None])).argmax(dim=-1)
    tokens = make_sampler(kernel, VOCAB_SIZE).sample(logits, rows)

    assert [token.token_id for token in tokens] == expected.tolist()
