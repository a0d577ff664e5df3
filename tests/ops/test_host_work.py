"""The host's work of a step is measured phase by phase."""

from __future__ import annotations

import asyncio

from ops.bench.host_work import PHASES, measure, render


def test_every_phase_of_every_step_is_timed() -> None:
    taken_s = asyncio.run(measure(num_seqs=3, num_steps=20))
    assert {phase: len(seconds) for phase, seconds in taken_s.items()} == dict.fromkeys(PHASES, 20)


def test_phases_are_added_up_beside_the_target() -> None:
    table = render({"schedule": [1e-4] * 10, "commit": [3e-4] * 10}, 256)
    assert "| sum | 400 | 400 | 1.56 |" in table
    assert "| target at 256 | 300 |" in table
