"""Drafts are what followed the last three tokens when they stood before."""

from __future__ import annotations

import random

import pytest

from batching.prompt_lookup import MAX_INDEXED_TOKENS, PromptLookup


def slow_drafts(token_ids: list[int], num_tokens: int) -> list[int]:
    """The same by looking through the whole text, newest first."""
    places = range(len(token_ids) - 1, 2, -1)
    found = [place for place in places if token_ids[place - 3 : place] == token_ids[-3:]]
    return token_ids[found[0] : found[0] + num_tokens] if found else []


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([], []),
        ([1], []),
        ([1, 2, 3], []),
        ([1, 2, 3, 4, 1, 2, 3], [4, 1]),
        ([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], [5, 1]),
        ([7, 7, 7, 7], [7]),
        ([1, 2, 3, 4, 5, 2, 3], []),
    ],
)
def test_what_followed_last_time_is_the_draft(token_ids: list[int], expected: list[int]) -> None:
    assert PromptLookup().drafts(token_ids, 2) == expected


def test_growing_text_gives_what_a_search_of_it_gives() -> None:
    rng = random.Random(0)
    lookup, token_ids = PromptLookup(), [rng.randrange(3) for _ in range(20)]
    for _ in range(300):
        assert lookup.drafts(token_ids, 4) == slow_drafts(token_ids, 4)
        token_ids += [rng.randrange(3) for _ in range(rng.randrange(1, 4))]


def test_of_a_long_prompt_only_the_end_is_searched() -> None:
    far, near = [1, 2, 3, 4], [1, 2, 3, 5]
    filling = [9] * MAX_INDEXED_TOKENS
    assert PromptLookup().drafts([*far, *filling, 1, 2, 3], 1) == []
    assert PromptLookup().drafts([*far, *filling, *near, 1, 2, 3], 1) == [5]
