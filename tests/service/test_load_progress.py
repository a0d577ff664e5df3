"""Loading shows each stage once where nobody watches, and a moving line that goes away on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from service.load_progress import LoadProgress


def test_stages_are_plain_lines_without_a_terminal() -> None:
    out = io.StringIO()
    with LoadProgress(Console(file=out, force_terminal=False)) as progress:
        progress.report("loading weights", 0.1)
        progress.report("loading weights", 0.9)
        progress.report("warming up", None)
    assert out.getvalue() == "loading weights ...\nwarming up ...\n"


def test_stage_is_shown_on_a_terminal() -> None:
    out = io.StringIO()
    with LoadProgress(Console(file=out, force_terminal=True, width=100)) as progress:
        progress.report("loading weights", 0.5)
        progress.report("warming up", None)
    assert "warming up" in out.getvalue()


def test_report_after_close_is_dropped() -> None:
    out = io.StringIO()
    progress = LoadProgress(Console(file=out, force_terminal=False))
    progress.close()
    progress.report("late", None)
    assert out.getvalue() == ""
