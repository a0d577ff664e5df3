"""The sampler over device rows in torch chooses what the host's sampler chooses."""

from __future__ import annotations

import pytest
import torch

from batching.kernels import device_sampling_torch
from batching.kernels.sampler_buffers import SamplerBuffers
from tests.batching.kernels.triton_child import WITHOUT_TRITON, has_triton

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)

from tests.batching.kernels import sampler_tables
from tests.batching.kernels.sampler_tables import CASES, SamplerCase

CPU = torch.device("cpu")
UNMASKED = [case for case in CASES if not case.has_masks]


def sampled(case: SamplerCase) -> SamplerBuffers:
    """Results with a row of padding, in buffers that are full of a former step."""
    rows = sampler_tables.make_rows(case)
    logits = torch.nn.functional.pad(sampler_tables.make_logits(case), (0, 0, 0, 1))
    buffers = SamplerBuffers(case.num_rows + 2, case.vocab_size, CPU)
    buffers.results.fill_(77)
    buffers.top_ids.fill_(77)
    buffers.top_logprobs.fill_(77)
    indexes = torch.tensor([*range(2, case.num_rows + 2), -1], dtype=torch.int32)
    num_sampling = torch.tensor([case.num_rows], dtype=torch.int32)
    tables = sampler_tables.make_tables(case, rows, CPU)
    device_sampling_torch.sample(logits, indexes, num_sampling, tables, None, buffers)
    return buffers


@pytest.mark.parametrize("case", UNMASKED, ids=str)
def test_tokens_and_statuses_are_those_of_the_host(case: SamplerCase) -> None:
    buffers = sampled(case)
    assert sampler_tables.chosen_by_kernels(buffers, case) == sampler_tables.chosen_by_reference(case)
    assert buffers.status[case.num_rows] == 0


@pytest.mark.parametrize("case", UNMASKED, ids=str)
def test_log_probabilities_are_those_of_the_host(case: SamplerCase) -> None:
    buffers = sampled(case)
    found = sampler_tables.logprobs_of_kernels(buffers, case)
    expected = sampler_tables.reference_logprobs(buffers, case)
    assert sampler_tables.ids_of(found) == sampler_tables.ids_of(expected)
    assert sampler_tables.numbers_of(found) == pytest.approx(sampler_tables.numbers_of(expected), abs=1e-5)


def test_masks_are_refused() -> None:
    case = CASES[0]
    with pytest.raises(ValueError, match="masks are not applied"):
        device_sampling_torch.sample(
            sampler_tables.make_logits(case),
            torch.zeros(case.num_rows, dtype=torch.int32),
            torch.zeros(1, dtype=torch.int32),
            sampler_tables.make_tables(case, sampler_tables.make_rows(case), CPU),
            torch.zeros(1, 2, dtype=torch.int32),
            SamplerBuffers(case.num_rows, case.vocab_size, CPU),
        )
