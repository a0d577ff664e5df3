"""Rows, logits and kernels that the sampler's tests share."""

from __future__ import annotations

import random

import torch

from batching.kernels.sampling_numba import NumbaSampling
from batching.kernels.sampling_torch import TorchSampling
from batching.sampler import Sampler, SamplingKernel
from batching.step import SampledToken, ScheduledSequence
from contracts.sampling import SamplingParams
from tests.batching.reference_sampler import sample_row

EOS = frozenset({1})
CPU = torch.device("cpu")

PENALTIES = ((1.0, 0.0, 0.0), (1.3, 0.4, -0.2), (0.8, -0.5, 0.3))
BIASES: tuple[tuple[tuple[int, float], ...], ...] = (
    (),
    ((0, -100.0), (2, 1.5), (3, 100.0)),
    ((1, -100.0), (2, -0.25)),
)


def make_kernel(name: str, vocab_size: int, num_threads: int = 2) -> SamplingKernel:
    return NumbaSampling(vocab_size, num_threads) if name == "numba" else TorchSampling()


def make_sampler(name: str, vocab_size: int) -> Sampler:
    return Sampler(vocab_size, EOS, CPU, make_kernel(name, vocab_size))


def make_row(
    sampling: SamplingParams, seed: int = 0, position: int = 7, num_output_tokens: int = 4
) -> ScheduledSequence:
    """A decoding row whose next token stands at `position`."""
    return ScheduledSequence(
        seq_id=seed,
        token_ids=[2],
        start=position - 1,
        block_ids=[0],
        is_sampling=True,
        sampling=sampling,
        seed=seed,
        num_output_tokens=num_output_tokens,
        prompt_token_ids=[0, 2, 2, 9],
        output_token_ids=[2, 3, 3, 2],
    )


def make_logits(num_rows: int, vocab_size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Normal logits, wider and with more ties from row to row, and three padding columns that would always win."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, vocab_size + 3, generator=generator)
    logits *= torch.linspace(0.5, 6.0, num_rows)[:, None]
    logits[1::3] = (logits[1::3] * 2).round() / 2
    logits[:, vocab_size:] = 1000.0
    return logits.to(dtype)


def draw_rows(num_rows: int, vocab_size: int, seed: int) -> list[ScheduledSequence]:
    """Rows drawn evenly from the cross product of all options."""
    draw = random.Random(seed)
    return [
        make_row(
            draw_params(draw, vocab_size),
            seed=draw.getrandbits(64),
            position=draw.randrange(1, 5000),
            num_output_tokens=draw.randrange(5),
        )
        for _ in range(num_rows)
    ]


def draw_params(draw: random.Random, vocab_size: int) -> SamplingParams:
    repetition_penalty, presence_penalty, frequency_penalty = draw.choice(PENALTIES)
    return SamplingParams(
        temperature=draw.choice((0.0, 0.7, 1.5)),
        top_k=draw.choice((0, 1, 5, vocab_size + 3)),
        top_p=draw.choice((1.0, 0.9, 0.1)),
        min_p=draw.choice((0.0, 0.2)),
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=draw.choice(BIASES),
        min_tokens=draw.choice((0, 3)),
        ignore_eos=draw.choice((False, True)),
        stop_token_ids=(4,),
        num_logprobs=draw.choice((None, 0, 5)),
    )


def expected_tokens(logits: torch.Tensor, rows: list[ScheduledSequence], vocab_size: int) -> list[SampledToken]:
    return [sample_row(logits[i].tolist(), row, vocab_size, EOS) for i, row in enumerate(rows)]


def choices(tokens: list[SampledToken]) -> list[tuple[int, bool]]:
    """Token id and whether the row failed."""
    return [(token.token_id, token.error is not None) for token in tokens]


def logprob_ids(tokens: list[SampledToken]) -> list[list[int] | None]:
    return [[token_id for token_id, _ in token.logprob.top] if token.logprob else None for token in tokens]


def logprob_numbers(tokens: list[SampledToken]) -> list[float]:
    """Every log probability in a flat list: of the chosen token, then of the top."""
    found = [token.logprob for token in tokens if token.logprob is not None]
    return [number for entry in found for number in (entry.logprob, *(logprob for _, logprob in entry.top))]
