"""The tables of the kernels are worth something: they notice every seeded bug."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from batching.kernels import step_input_triton
from tests.batching.kernels import kernel_mutants, layer_cases, sampler_tables
from tests.batching.kernels.kernel_mutants import MUTANTS, KernelMutant

pytestmark = pytest.mark.usefixtures("interpreter")

TABLE = [pytest.param(mutant, marks=pytest.mark.slow) if mutant.is_slow else pytest.param(mutant) for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_tables_notice_the_bug(mutant: KernelMutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = mutant.load(tmp_path)
    name = mutant.module.__name__.rpartition(".")[2]
    monkeypatch.setattr(layer_cases, name, broken, raising=False)
    monkeypatch.setattr(sampler_tables, name, broken, raising=False)
    monkeypatch.setitem(kernel_mutants.KERNELS, step_input_triton, broken)

    assert mutant.notices(), f"nothing notices that {mutant.name}"


def test_there_are_enough_different_bugs() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
