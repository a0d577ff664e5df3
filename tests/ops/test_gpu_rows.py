"""The table of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.bench.gpu.rows import Row, RowFile, read_rows, render_table


@pytest.mark.parametrize(
    ("value", "floor", "is_more_better", "share"),
    [(50.0, 100.0, True, 0.5), (4.0, 1.0, False, 0.25), (None, 1.0, True, None), (4.0, None, False, None)],
    ids=["speed", "latency", "not measured", "no floor"],
)
def test_share_says_how_much_of_what_the_machine_allows_was_reached(
    value: float | None, floor: float | None, is_more_better: bool, share: float | None
) -> None:
    row = Row(part="p", figure="f", value=value, unit="u", floor=floor, is_more_better=is_more_better)
    assert row.share == share


def test_rows_of_all_parts_are_read_back_without_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    RowFile(path, "offline").add("speed", 12_345.6, "tokens/s", 20_000.0, is_more_better=True, note="n")
    RowFile(path, "stream").add("a token", 0.61234, "ms")
    with path.open("ab") as file:
        file.write(b'{"part": "str')
    rows = read_rows(path)
    assert [row.part for row in rows] == ["offline", "stream"]
    assert render_table(rows).splitlines()[2:] == [
        "| offline | speed | 12,346 | tokens/s | 20,000 | 62% | n |",
        "| stream | a token | 0.612 | ms |  |  |  |",
    ]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []
