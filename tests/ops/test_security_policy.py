"""SECURITY.md names tests, files and settings that exist."""

from __future__ import annotations

import re

import pytest

from service.setting_fields import setting_fields
from tests.shape_rules import ROOT

POLICY = (ROOT / "SECURITY.md").read_text("utf-8")
RULES = re.search(r"## What is enforced.*?\n## ", POLICY, flags=re.DOTALL)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)", POLICY))))
def test_linked_file_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_every_rule_has_a_test() -> None:
    assert RULES is not None
    rows = [line for line in RULES[0].splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert len(rows) > 15
    assert [row for row in rows if not re.search(r"\(tests/\w+(/\w+)*\.py\)[^|]*\|$", row)] == []


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z][a-z-]*)", POLICY))))
def test_flag_is_a_setting(flag: str) -> None:
    known = {field.flag for field in setting_fields()}
    assert flag in known or flag.replace("--no-", "--", 1) in known
