"""The start of an engine is told as stages that follow each other."""

from __future__ import annotations

import time

from service.startup_spans import IMPORTING, PROCESS, StartupLog


def test_stage_ends_where_the_next_begins() -> None:
    launched_s = time.monotonic() - 1.0
    log = StartupLog(launched_s)
    log.begin(IMPORTING)
    log.begin("loading weights")
    log.begin("loading weights")
    log.end()
    stages = log.stages()
    assert [name for name, _, _ in stages] == [PROCESS, IMPORTING, "loading weights"]
    assert stages[0][1] == launched_s
    assert [ended_s for _, _, ended_s in stages[:-1]] == [began_s for _, began_s, _ in stages[1:]]
    assert log.stages() == stages
