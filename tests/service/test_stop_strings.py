"""The automaton finds what a slow search finds, and its state says how much may still become a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stop_strings import StopStrings

STRINGS = st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4)


def first_match(text: str, strings: list[str]) -> tuple[int, int]:
    """The slow reference: end and length of the match that is complete first, the longest at that place."""
    for end in range(len(text) + 1):
        lens = [len(string) for string in strings if text[:end].endswith(string)]
        if lens:
            return end, max(lens)
    return 0, 0


def longest_beginning(text: str, strings: list[str]) -> int:
    """Length of the longest suffix of text with which one of the strings begins."""
    beginnings = {string[:length] for string in strings for length in range(len(string))}
    return max(len(beginning) for beginning in beginnings if text.endswith(beginning))


@given(STRINGS, st.text("abc", max_size=30))
def test_match_is_the_one_of_a_slow_search(strings: list[str], text: str) -> None:
    _, end, length = StopStrings(strings).scan(0, text)
    assert (end, length) == first_match(text, strings)


@given(STRINGS, st.text("abc", max_size=30), st.integers(0, 30))
def test_match_does_not_depend_on_where_the_text_is_cut(strings: list[str], text: str, cut: int) -> None:
    automaton = StopStrings(strings)
    whole = first_match(text, strings)
    state, end, length = automaton.scan(0, text[:cut])
    state, end, length = (state, end - cut, length) if end else automaton.scan(state, text[cut:])
    found = (end + cut, length) if length else (0, 0)
    assert found == whole


@given(STRINGS, st.text("abc", max_size=30))
def test_depth_is_the_longest_suffix_that_may_become_a_stop_string(strings: list[str], text: str) -> None:
    automaton = StopStrings(strings)
    state, end, _ = automaton.scan(0, text)
    assert end > 0 or automaton.depths[state] == longest_beginning(text, strings)


@given(STRINGS)
def test_states_are_at_most_the_characters_and_the_start(strings: list[str]) -> None:
    assert len(StopStrings(strings).depths) <= sum(map(len, strings)) + 1


@pytest.mark.parametrize("string", ["^", "-", "]", "\\", "[a-z]", ".*", "\n", "\x00", "🙂", "\u2028"])
def test_characters_with_a_meaning_in_patterns_are_plain(string: str) -> None:
    assert StopStrings([string]).scan(0, "zzz" + string + "z")[1:] == (3 + len(string), len(string))
