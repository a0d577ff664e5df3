"""One measured figure beside its floor, and the table of all of them. Knows nothing of how anything is measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    part: str
    figure: str
    value: float | None
    """None: not measured; `note` says why."""
    unit: str
    floor: float | None = None
    """What the machine allows, in the same unit: an upper bound where more is better, else a lower one."""
    is_more_better: bool = False
    note: str = ""

    @property
    def share(self) -> float | None:
        """How much of the floor was reached; 1 is all that the machine can do."""
        if not self.value or not self.floor:
            return None
        return self.value / self.floor if self.is_more_better else self.floor / self.value


class RowFile:
    """Where a part writes its rows as they are measured, so that one that is stopped keeps them; also printed."""

    def __init__(self, path: Path, part: str) -> None:
        self._path = path
        self._part = part

    def add(
        self,
        figure: str,
        value: float | None,
        unit: str,
        floor: float | None = None,
        *,
        is_more_better: bool = False,
        note: str = "",
    ) -> None:
        """One more row of this part."""
        row = Row(
            part=self._part,
            figure=figure,
            value=value,
            unit=unit,
            floor=floor,
            is_more_better=is_more_better,
            note=note,
        )
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")
        print("  " + " | ".join(cells_of(row)), flush=True)


def read_rows(path: Path) -> list[Row]:
    """Every whole row of a file; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what is behind the last line end was cut off
    return [msgspec.json.decode(line, type=Row) for line in lines]


def render_table(rows: Iterable[Row]) -> str:
    """Markdown."""
    headings = ["part", "figure", "measured", "unit", "floor", "share of the floor", "note"]
    lines = [headings, ["---"] * len(headings), *([row.part, *cells_of(row)] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells_of(row: Row) -> list[str]:
    """A row as text, without its part."""
    share = "" if row.share is None else f"{row.share:.0%}"
    return [row.figure, format_number(row.value), row.unit, format_number(row.floor), share, row.note]


def format_number(value: float | None) -> str:
    """Three figures, or whole numbers with separators."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
