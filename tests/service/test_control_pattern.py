"""One pattern finds the longest of many strings, in time that does not grow with their number."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control_pattern import compile_any

STRINGS = st.lists(st.text("ab|<", min_size=1, max_size=5), min_size=1, max_size=8)


@given(STRINGS, st.text("ab|<", max_size=40))
def test_matches_are_those_of_a_plain_alternation(strings: list[str], text: str) -> None:
    plain = re.compile("|".join(map(re.escape, sorted(strings, key=len, reverse=True))))
    pattern = compile_any(strings)
    assert pattern is not None
    assert pattern.findall(text) == plain.findall(text)


@pytest.mark.parametrize("strings", [[], [""]])
def test_no_strings_make_no_pattern(strings: list[str]) -> None:
    assert compile_any(strings) is None


def test_thousands_of_strings_share_their_prefixes() -> None:
    pattern = compile_any([*(f"<unused{number}>" for number in range(5000)), "[INST]"])
    assert pattern is not None
    assert pattern.pattern.count("unused") == 1
    assert pattern.findall("<" * 10_000 + "unused4999>[INST]<unused5000>") == ["<unused4999>", "[INST]"]
