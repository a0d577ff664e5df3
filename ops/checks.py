"""Questions that a run answers with yes or no, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import box
from rich.table import Table


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its answer."""

    name: str
    wanted: str
    found: str
    is_ok: bool


def build_table(*headings: str) -> Table:
    """An empty table; the first column is text, the others are figures."""
    table = Table(box=box.SIMPLE_HEAD)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position == 0 else "right", overflow="fold")
    return table


def list_checks(checks: Sequence[Check]) -> Table:
    """One row per check."""
    table = build_table("check", "wanted", "found", "")
    for check in checks:
        table.add_row(check.name, check.wanted, check.found, "ok" if check.is_ok else "MISSED")
    return table
