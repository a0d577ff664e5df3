"""The device sampler chooses the same tokens as the reference sampler, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import sampler_triton
from batching.kernels.sampler_buffers import SamplerBuffers
from batching.row_tables import RowShape, RowTables
from batching.sampling_noise import gumbel_noise, row_keys, token_bits
from tests.batching.kernels import noise_kernels, sampler_tables
from tests.batching.kernels.sampler_tables import CASES, CPU, SLOW_CASES, SamplerCase

pytestmark = pytest.mark.usefixtures("interpreter")

TABLE = [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_kernels_choose_what_the_reference_chooses_and_tell_its_log_probabilities(case: SamplerCase) -> None:
    buffers = sampler_tables.run_kernels(case, CPU)

    assert sampler_tables.chosen_by_kernels(buffers, case) == sampler_tables.chosen_by_reference(case)
    found, wanted = sampler_tables.logprobs_of_kernels(buffers, case), sampler_tables.reference_logprobs(buffers, case)
    assert sampler_tables.ids_of(found) == sampler_tables.ids_of(wanted)
    assert sampler_tables.numbers_of(found) == pytest.approx(sampler_tables.numbers_of(wanted), abs=3e-5)


def test_padding_and_rows_that_do_not_sample_choose_nothing_but_are_checked() -> None:
    case = SamplerCase(6, 40, shape="broken", has_edits=False)
    rows = sampler_tables.make_rows(case)
    buffers = SamplerBuffers(6, 40, CPU)

    sampler_triton.sample(
        sampler_tables.make_logits(case),
        torch.tensor([2, 3, 4, 5, 6, -1], dtype=torch.int32),
        torch.tensor([0], dtype=torch.int32),
        sampler_tables.make_tables(case, rows, CPU),
        None,
        buffers,
    )

    assert buffers.token_ids.tolist() == [0] * 6
    assert buffers.status.tolist() == [1, 1, 1, 0, 1, 0]


SEEDS = [0, 1, 2**32, 2**63, 2**64 - 1, 123456789012345678]
POSITIONS = [0, 1, 131_071, 5, 2**31 - 1, 77]


def test_noise_is_the_one_of_every_other_path_bit_by_bit() -> None:
    seeds = torch.tensor([seed - 2**64 if seed >= 2**63 else seed for seed in SEEDS])
    positions = torch.tensor(POSITIONS, dtype=torch.int32)
    bits = torch.empty(6, 4096, dtype=torch.int64)
    exact, rough = torch.empty(6, 4096, dtype=torch.float64), torch.empty(6, 4096)

    noise_kernels.noise_kernel[(6,)](seeds, positions, bits, exact, rough, num_ids=4096)

    keys = torch.from_numpy(row_keys(SEEDS, POSITIONS).astype("int64"))
    token_ids = torch.arange(4096)[None]
    assert torch.equal(bits, token_bits(keys, token_ids))
    assert (exact - gumbel_noise(keys, token_ids)).abs().max() < 1e-14
    assert (rough - exact).abs().max() < 1e-5


def test_rough_noise_is_close_at_the_ends_of_the_bits_and_where_its_formula_changes() -> None:
    changes = int(2**32 * (1 - 0.0625))
    near = [*range(32), *range(2**32 - 64, 2**32), *range(changes - 48, changes + 48), 2**31, 2**31 - 1]
    bits = torch.tensor((near + [7] * 256)[:256])
    exact, rough = torch.empty(256, dtype=torch.float64), torch.empty(256)

    noise_kernels.rough_kernel[(1,)](bits, exact, rough, tile=256)

    assert exact.isfinite().all()
    assert (rough - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("logits", "masks", "message"),
    [
        (torch.zeros(2, 39), None, "not 40"),
        (torch.zeros(40, 2).T, None, "not 40"),
        (torch.zeros(2, 40), torch.zeros(1, 1, dtype=torch.int32), "too few for 40"),
        (torch.zeros(3, 40), None, "rows has shape"),
    ],
)
def test_wrong_shapes_are_refused(logits: torch.Tensor, masks: torch.Tensor | None, message: str) -> None:
    tables = RowTables(RowShape(num_rows=1, max_len=1, max_blocks=1, max_edits=0), CPU)
    rows, num_sampling = torch.zeros(2, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)

    with pytest.raises(ValueError, match=message):
        sampler_triton.sample(logits, rows, num_sampling, tables, masks, SamplerBuffers(2, 40, CPU))
