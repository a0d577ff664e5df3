"""The example of a .env file can be used as it stands, with every line switched on."""

from __future__ import annotations

from pathlib import Path

from service.settings_loader import load_settings
from tests.shape_rules import ROOT


def test_every_line_of_the_example_is_a_valid_setting(tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    (tmp_path / ".env").write_text(example.replace("# LLM_", "LLM_"))
    assert load_settings({}, {}, tmp_path / ".env").engine.kv_cache_memory == "4GiB"
