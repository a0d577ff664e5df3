"""The sampler equals the plain reference over the cross product of its options, row by row, on both CPU kernels."""

from __future__ import annotations

import sys

import msgspec
import pytest
import torch

from batching.kernels.sampling_torch import TorchSampling
from batching.sampler import Sampler, select_kernel
from contracts.sampling import SamplingParams
from tests.batching.sampler_cases import (
    CPU,
    EOS,
    choices,
    draw_rows,
    expected_tokens,
    logprob_ids,
    logprob_numbers,
    make_logits,
    make_row,
    make_sampler,
)

KERNELS = pytest.mark.parametrize("kernel", ["torch", "numba"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
NAN, INF = float("nan"), float("inf")


@KERNELS
@DTYPES
@pytest.mark.parametrize(("vocab_size", "num_rows"), [(12, 600), (37, 300), (150, 150)])
def test_mixed_batch_equals_the_plain_reference(
    kernel: str, dtype: torch.dtype, vocab_size: int, num_rows: int
) -> None:
    rows = draw_rows(num_rows, vocab_size, seed=vocab_size)
    logits = make_logits(num_rows, vocab_size, dtype)

    tokens = make_sampler(kernel, vocab_size).sample(logits, rows)

    expected = expected_tokens(logits, rows, vocab_size)
    assert choices(tokens) == choices(expected)
    assert logprob_ids(tokens) == logprob_ids(expected)
    assert logprob_numbers(tokens) == pytest.approx(logprob_numbers(expected), abs=2e-5)


@KERNELS
@DTYPES
def test_row_alone_equals_row_among_others(kernel: str, dtype: torch.dtype) -> None:
    rows, logits = draw_rows(64, 1000, seed=5), make_logits(64, 1000, dtype)
    sampler = make_sampler(kernel, 1000)

    together = sampler.sample(logits, rows)
    alone = [sampler.sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]

    assert choices(alone) == choices(together)
    assert logprob_ids(alone) == logprob_ids(together)
    assert logprob_numbers(alone) == pytest.approx(logprob_numbers(together), abs=1e-5)


@KERNELS
def test_sampling_twice_gives_the_same_and_leaves_the_logits_unchanged(kernel: str) -> None:
    rows, logits = draw_rows(64, 40, seed=6), make_logits(64, 40, torch.float32)
    before = logits.clone()
    sampler = make_sampler(kernel, 40)

    assert sampler.sample(logits, rows) == sampler.sample(logits, rows)
    assert torch.equal(logits, before)


@KERNELS
@DTYPES
@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_padding_ids_are_never_chosen(kernel: str, dtype: torch.dtype, temperature: float) -> None:
    rows = [make_row(SamplingParams(temperature=temperature, num_logprobs=20), seed=seed) for seed in range(200)]

    tokens = make_sampler(kernel, 12).sample(make_logits(200, 12, dtype), rows)

    assert max(token.token_id for token in tokens) < 12
    assert max(max(ids or []) for ids in logprob_ids(tokens)) < 12


@KERNELS
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vocabulary_of_one_token(kernel: str, temperature: float, dtype: torch.dtype) -> None:
    row = make_row(SamplingParams(temperature=temperature, top_k=3, top_p=0.5, num_logprobs=5))

    (token,) = make_sampler(kernel, 1).sample(torch.tensor([[-3.0, 9.0]], dtype=dtype), [row])

    assert token.token_id == 0
    assert token.logprob is not None
    assert (token.logprob.logprob, token.logprob.top) == (0.0, [(0, 0.0)])


@KERNELS
@DTYPES
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.5, top_k=1),
        SamplingParams(temperature=1.5, top_p=1e-9),
        SamplingParams(temperature=1e-30),
    ],
)
def test_one_token_left_is_the_greedy_one_even_among_equals(
    kernel: str, dtype: torch.dtype, sampling: SamplingParams
) -> None:
    logits = make_logits(60, 200, dtype).round()
    sampler = make_sampler(kernel, 200)

    greedy = sampler.sample(logits, [make_row(SamplingParams(temperature=0.0))] * 60)
    narrow = sampler.sample(logits, [make_row(sampling, seed=seed) for seed in range(60)])

    assert choices(narrow) == choices(greedy)


@KERNELS
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bias_of_100_forces_and_bias_of_minus_100_bans_a_token(kernel: str, temperature: float) -> None:
    logits = make_logits(40, 12, torch.float32).clamp(-9, 9)
    banned_id = int(logits[0, :12].argmax())
    forced = SamplingParams(temperature=temperature, logit_bias=((7, 100.0),))
    banned = SamplingParams(temperature=temperature, logit_bias=((banned_id, -100.0), (999, 5.0)))
    sampler = make_sampler(kernel, 12)

    forced_tokens = sampler.sample(logits, [make_row(forced, seed=seed) for seed in range(40)])
    banned_tokens = sampler.sample(logits, [make_row(banned, seed=seed) for seed in range(40)])

    assert {token.token_id for token in forced_tokens} == {7}
    assert banned_id not in {token.token_id for token in banned_tokens}


@KERNELS
@DTYPES
@pytest.mark.parametrize("bad", [[NAN, 0.0], [-NAN, 0.0], [INF, 0.0], [INF, NAN]], ids=str)
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=0.7, top_k=3, top_p=0.9, num_logprobs=2),
        SamplingParams(temperature=0.7, logit_bias=((2, 1.0),)),
    ],
)
def test_row_with_a_logit_that_is_not_finite_fails_alone(
    kernel: str, dtype: torch.dtype, bad: list[float], sampling: SamplingParams
) -> None:
    logits = make_logits(4, 100, dtype)
    rows = [make_row(sampling, seed=seed) for seed in range(4)]
    sampler = make_sampler(kernel, 100)
    whole = sampler.sample(logits, rows)
    logits[2, 97:99] = torch.tensor(bad, dtype=dtype)

    tokens = sampler.sample(logits, rows)

    assert (tokens[2].token_id, tokens[2].logprob) == (0, None)
    assert "at position 7 contain NaN or +inf" in (tokens[2].error or "")
    assert tokens[:2] + tokens[3:] == whole[:2] + whole[3:]


@KERNELS
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("bias", [(), ((2, 1.0),)])
def test_row_of_minus_infinity_fails_and_single_ones_do_not(
    kernel: str, temperature: float, bias: tuple[tuple[int, float], ...]
) -> None:
    logits = make_logits(2, 100, torch.float32)
    logits[0, :100] = -INF
    logits[1, 1:100] = -INF
    rows = [make_row(SamplingParams(temperature=temperature, logit_bias=bias, num_logprobs=5))] * 2

    tokens = make_sampler(kernel, 100).sample(logits, rows)

    assert choices(tokens) == [(0, True), (0, False)]
    assert tokens[1].logprob is not None
    assert tokens[1].logprob.top == [(0, 0.0)]


@KERNELS
def test_row_whose_every_token_is_masked_says_which_options_did_it(kernel: str) -> None:
    sampling = SamplingParams(min_tokens=9, stop_token_ids=(0,))

    (token,) = make_sampler(kernel, 2).sample(torch.zeros(1, 2), [make_row(sampling)])

    assert "logit_bias and min_tokens leave no token" in (token.error or "")


@pytest.mark.parametrize(
    ("ignore_eos", "num_output_tokens", "expected"), [(False, 2, 0), (True, 2, 1), (False, 3, 1), (False, 4, 1)]
)
def test_end_tokens_are_masked_below_min_tokens_unless_ignored(
    ignore_eos: bool, num_output_tokens: int, expected: int
) -> None:
    sampling = SamplingParams(temperature=0.0, min_tokens=3, ignore_eos=ignore_eos, stop_token_ids=(2, 800))
    logits = torch.tensor([[0.0, 5.0, 3.0, -1.0]])

    (token,) = make_sampler("numba", 4).sample(logits, [make_row(sampling, num_output_tokens=num_output_tokens)])

    assert token.token_id == expected


@pytest.mark.parametrize(("top_p", "expected"), [(0.9, 9), (0.5, 5), (0.05, 1)])
@KERNELS
def test_top_p_keeps_the_token_that_reaches_it_and_lower_ids_among_equals(
    kernel: str, top_p: float, expected: int
) -> None:
    rows = [make_row(SamplingParams(top_p=top_p), seed=seed) for seed in range(300)]

    tokens = make_sampler(kernel, 10).sample(torch.ones(300, 10), rows)

    assert {token.token_id for token in tokens} == set(range(expected))


def test_other_seed_and_other_position_give_other_tokens() -> None:
    sampling, logits = SamplingParams(), torch.zeros(64, 1000)
    sampler = make_sampler("numba", 1000)

    by_seed = sampler.sample(logits, [make_row(sampling, seed=seed) for seed in range(64)])
    by_position = sampler.sample(logits, [make_row(sampling, position=position) for position in range(1, 65)])

    assert len({token.token_id for token in by_seed}) > 50
    assert len({token.token_id for token in by_position}) > 50


def test_no_rows_give_no_tokens() -> None:
    assert make_sampler("torch", 4).sample(torch.empty(0, 4), []) == []


def test_cpu_takes_the_numba_kernel_and_another_device_torch() -> None:
    assert type(select_kernel(4, CPU)).__name__ == "NumbaSampling"
    assert type(select_kernel(4, torch.device("meta"))) is TorchSampling


def test_missing_numba_falls_back_to_torch_with_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, logits = draw_rows(30, 40, seed=8), make_logits(30, 40, torch.float32)
    expected = choices(Sampler(40, EOS, CPU).sample(logits, rows))
    monkeypatch.setitem(sys.modules, "batching.kernels.sampling_numba", None)

    assert type(select_kernel(40, CPU)) is TorchSampling
    assert choices(Sampler(40, EOS, CPU).sample(logits, rows)) == expected


def test_history_is_not_needed_without_penalties() -> None:
    row = msgspec.structs.replace(make_row(SamplingParams()), prompt_token_ids=None, output_token_ids=None)

    (token,) = make_sampler("numba", 12).sample(make_logits(1, 12, torch.float32), [row])

    assert token.error is None
