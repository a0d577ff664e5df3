"""Findings for people: a line for each check, its remedy below it, and a last line that says how many failed."""

from __future__ import annotations

from collections import Counter

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contracts.checkup import CheckState, Checkup, Finding

MARKS: dict[CheckState, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("warn", "yellow"),
    "failed": ("FAIL", "bold red"),
    "skipped": ("skip", "dim"),
}
NARROW = 70
"""Columns below which a check's words stand under its name instead of beside it."""


def print_finding(finding: Finding, console: Console, name_len: int, *, is_detailed: bool = False) -> None:
    """One check: mark, name, what was found, seconds; then remedy and, where wanted, the numbers."""
    mark, style = MARKS[finding.state]
    head = (Text(mark, style=style), Text(finding.name, style="bold"))
    words = Group(*_lines(finding, is_detailed=is_detailed))
    took = Text(f"{finding.took_s:.1f} s" if finding.took_s >= 0.05 else "", style="dim")
    table = Table.grid(padding=(0, 1))
    table.add_column(width=4)
    if console.width < NARROW:
        table.add_column(ratio=1, overflow="fold")
        table.add_row(head[0], Text.assemble(head[1], "  " if took.plain else "", took))
        console.print(table)
        console.print(Padding(words, (0, 0, 0, 2)))
        return
    table.add_column(width=name_len)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(width=7, justify="right")
    table.add_row(*head, words, took)
    table.expand = True
    console.print(table)


def _lines(finding: Finding, *, is_detailed: bool) -> list[Text]:
    lines = [Text(finding.summary, style="dim" if finding.state == "skipped" else "")]
    if finding.remedy is not None:
        lines.append(Text(f"-> {finding.remedy}", style=MARKS[finding.state][1]))
    if is_detailed and finding.evidence:
        numbers = ", ".join(f"{name} {_shown(name, value)}" for name, value in finding.evidence.items())
        lines.append(Text(numbers, style="dim"))
    return lines


def _shown(name: str, value: bool | int | float | str | None) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    is_amount = name.startswith("num_") or name.endswith(("_bytes", "_tokens"))
    return f"{value:,}" if is_amount and isinstance(value, int) else str(value)


def print_verdict(checkup: Checkup, console: Console) -> None:
    """The last line."""
    counts = Counter(finding.state for finding in checkup.findings)
    names: tuple[tuple[CheckState, str], ...] = (
        ("failed", "failed"),
        ("warning", "with a warning"),
        ("skipped", "skipped"),
        ("ok", "ok"),
    )
    told = ", ".join(f"{counts[state]} {words}" for state, words in names if counts[state])
    verdict = Text("All is well" if checkup.is_well else "Not well", style="green" if checkup.is_well else "bold red")
    console.print(Text.assemble(verdict, f": {told}, in {checkup.took_s:.1f} s."))
