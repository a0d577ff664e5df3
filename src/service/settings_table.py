"""The settings as a Markdown table: `python -m service.settings_table README.md` renews the one in the file."""

from __future__ import annotations

import sys
from pathlib import Path

from service.setting_fields import SettingField, setting_fields

BEGIN = "<!-- settings: begin -->"
END = "<!-- settings: end -->"


def render_table() -> str:
    """One row per setting: flag, default, meaning."""
    rows = [f"| {_name(field)} | {_default(field)} | {field.help} |" for field in setting_fields()]
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows])


def renew_table(document: str) -> str:
    """The document with the table between its markers renewed; ValueError where a marker is missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{render_table()}\n{END}{after}"


def _name(field: SettingField) -> str:
    if field.name == "model":
        return "`MODEL`"
    if field.is_secret:
        return f"`{field.variable}` (no flag)"
    if field.is_bool:
        return f"`{field.flag}`, `--no-{field.flag[2:]}`"
    return f"`{field.flag}`"


def _default(field: SettingField) -> str:
    if field.default in (None, ""):
        return ""
    return f"`{str(field.default).lower() if field.is_bool else field.default}`"


def main(path: Path) -> None:
    path.write_text(renew_table(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
