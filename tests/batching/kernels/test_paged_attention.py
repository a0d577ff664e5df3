"""The paged attention kernels, in Triton's interpreter: equal to the reference for every mix of rows and variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.batching.kernels.paged_cases import CASES, SLOW_CASES, Batch, Case, attend, error, random_case
from tests.batching.kernels.paged_mutants import MUTANTS, USUAL_MUTANTS, SourceMutant, first_failure
from tests.batching.kernels.triton_child import WITHOUT_TRITON, Run, has_triton

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)


def kernel_error(case: Case) -> float:
    import batching.kernels.paged_attention as kernels

    return error(kernels, case)


def kernel_output(case: Case) -> torch.Tensor:
    import batching.kernels.paged_attention as kernels

    return attend(kernels, Batch(case, torch.device("cpu")))


def output_with_programs(case: Case, target_programs: int) -> torch.Tensor:
    """The attention where a launch is meant to have so many programs."""
    import batching.kernels.paged_attention_config as config

    right = config.TARGET_PROGRAMS
    config.TARGET_PROGRAMS = target_programs
    try:
        return kernel_output(case)
    finally:
        config.TARGET_PROGRAMS = right


def refusal(case: Case, dims: int) -> str:
    """What is said to a cache whose keys have other dims than the queries."""
    import batching.kernels.paged_attention as kernels

    batch = Batch(case, torch.device("cpu"))
    batch.k = batch.k.new_zeros(*batch.k.shape[:3], dims)
    with pytest.raises(ValueError) as refused:
        attend(kernels, batch)
    return str(refused.value)


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_reference(name: str, interpret: Run) -> None:
    assert interpret(kernel_error, CASES[name]) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_kernels_equal_the_reference_for_larger_shapes(name: str, interpret: Run) -> None:
    assert interpret(kernel_error, SLOW_CASES[name]) <= 1.0


@pytest.mark.parametrize("seed", range(3))
def test_kernels_equal_the_reference_for_any_mix(seed: int, interpret: Run) -> None:
    assert interpret(kernel_error, random_case(seed)) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 64))
def test_kernels_equal_the_reference_for_any_of_many_mixes(seed: int, interpret: Run) -> None:
    assert interpret(kernel_error, random_case(seed)) <= 1.0


@pytest.mark.parametrize("row", [(300, 1), (120, 9)], ids=["decode", "drafts"])
def test_bits_of_a_row_do_not_depend_on_the_rest_of_the_batch(row: tuple[int, int], interpret: Run) -> None:
    alone = Case((row,), num_kv_heads=1, window=150, has_sinks=True)
    among = replace(alone, rows=(row, (200, 1), (3, 20), (0, 2)), num_empty=2)
    num_tokens = row[1]
    same_q_and_kv = interpret(kernel_output, alone), interpret(first_sequence_among, alone, among)
    assert torch.equal(same_q_and_kv[0], same_q_and_kv[1][:num_tokens])


def first_sequence_among(alone: Case, among: Case) -> torch.Tensor:
    """The batch of `among`, whose first sequence has the numbers of the only one of `alone`."""
    import batching.kernels.paged_attention as kernels

    one, many = Batch(alone, torch.device("cpu")), Batch(among, torch.device("cpu"))
    many.q[:, : one.starts[-1]] = one.q
    many.variant = one.variant
    width = -(-one.lens[0] // alone.block_size)
    many.k[many.tables[0, :width]] = one.k[one.tables[0, :width]]
    many.v[many.tables[0, :width]] = one.v[one.tables[0, :width]]
    return attend(kernels, many)


@pytest.mark.parametrize("target_programs", [1, 12])
def test_bits_do_not_depend_on_the_size_of_the_grid(target_programs: int, interpret: Run) -> None:
    case = Case(((300, 1), (400, 3)), num_kv_heads=1)
    usual = interpret(kernel_output, case)
    assert torch.equal(interpret(output_with_programs, case, target_programs), usual)


def test_a_cache_of_other_dims_is_refused_with_both_shapes(interpret: Run) -> None:
    message = interpret(refusal, CASES["padding"], 24)
    assert "(4, " in message
    assert "24)" in message


def test_kernels_without_a_bug_pass_the_battery(interpret: Run, tmp_path: Path) -> None:
    assert interpret(first_failure, str(tmp_path), None) is None


@pytest.mark.parametrize("mutant", USUAL_MUTANTS, ids=lambda mutant: mutant.name)
def test_battery_notices_the_bug(mutant: SourceMutant, interpret: Run, tmp_path: Path) -> None:
    failure = interpret(first_failure, str(tmp_path), mutant)
    assert failure is not None, f"nothing notices that {mutant.name}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS[len(USUAL_MUTANTS) :], ids=lambda mutant: mutant.name)
def test_battery_notices_any_bug(mutant: SourceMutant, interpret: Run, tmp_path: Path) -> None:
    failure = interpret(first_failure, str(tmp_path), mutant)
    assert failure is not None, f"nothing notices that {mutant.name}"
