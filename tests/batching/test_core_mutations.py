"""The battery of random histories is worth something: it notices every seeded bug, and finds none in the core."""

from __future__ import annotations

import pytest

from tests.batching.core_battery import first_failure
from tests.batching.core_mutant import Mutant, applied
from tests.batching.core_mutants import MUTANTS

SOME = list(MUTANTS[::7])
REST = [pytest.param(mutant, marks=pytest.mark.slow) for mutant in MUTANTS if mutant not in SOME]


def test_core_without_a_bug_passes_the_battery() -> None:
    assert first_failure() is None


@pytest.mark.parametrize("mutant", [*SOME, *REST], ids=lambda mutant: mutant.name)
def test_battery_notices_the_bug(mutant: Mutant) -> None:
    with applied(mutant):
        failure = first_failure()
    assert failure is not None, f"nothing notices that {mutant.name}"


def test_there_are_enough_different_bugs() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25
