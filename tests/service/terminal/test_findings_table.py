"""Findings fit any width and say the same without colours."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from contracts.checkup import Finding, conclude
from service.terminal.findings_table import print_finding, print_verdict

FAILED = Finding(
    name="port",
    state="failed",
    summary="Port 8000 on 127.0.0.1 is in use by nginx, process 42.",
    remedy="Port 8001 is free: --port 8001.",
    evidence={"port": 8000, "num_bytes": 12345, "is_free": False, "holder": None},
    took_s=1.25,
)
WELL = Finding(name="python", state="ok", summary="Python 3.11.")


def drawn(finding: Finding, width: int, *, is_detailed: bool = False) -> str:
    out = io.StringIO()
    print_finding(finding, Console(file=out, width=width), 10, is_detailed=is_detailed)
    return out.getvalue()


def test_wide_line_has_mark_name_words_and_seconds() -> None:
    first, second = drawn(FAILED, 100).splitlines()
    assert first.split()[:3] == ["FAIL", "port", "Port"]
    assert first.rstrip().endswith("1.2 s")
    assert second.strip() == "-> Port 8001 is free: --port 8001."


@pytest.mark.parametrize("width", [30, 40, 69, 70, 120])
def test_no_line_is_wider_than_the_window_and_no_word_is_lost(width: int) -> None:
    text = drawn(FAILED, width)
    assert max(map(len, text.splitlines())) <= width
    assert set(FAILED.summary.split()) <= set(text.split())


def test_numbers_are_shown_on_demand() -> None:
    assert "12,345" not in drawn(FAILED, 120)
    detailed = drawn(FAILED, 120, is_detailed=True)
    assert "port 8000, num_bytes 12,345, is_free no, holder unknown" in detailed


def test_verdict_counts() -> None:
    out = io.StringIO()
    print_verdict(conclude("doctor", "1", "m", [WELL, FAILED]), Console(file=out, width=80))
    assert out.getvalue() == "Not well: 1 failed, 1 ok, in 1.2 s.\n"
