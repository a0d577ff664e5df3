"""Drafts of the next tokens: where the last few tokens stood before in the same text, what followed then. Pure.

Saxena, "Prompt Lookup Decoding", 2023, https://github.com/apoorvumang/prompt-lookup-decoding. Who verifies drafts
decides what becomes of them; a wrong one costs a row of a step and nothing else.
"""

from __future__ import annotations

NGRAM_LEN = 3
"""Tokens that must agree before what followed them is a draft."""
MAX_INDEXED_TOKENS = 8192
"""Of a long prompt only the end is searched, so that a first draft takes a few milliseconds at most."""


class PromptLookup:
    """The places of all runs of NGRAM_LEN tokens in one growing text. Owner: its Sequence."""

    __slots__ = ("_next_places", "_num_indexed")

    def __init__(self) -> None:
        self._next_places: dict[tuple[int, ...], int] = {}
        """A run -> where the token stands that followed its last occurrence."""
        self._num_indexed = 0

    def drafts(self, token_ids: list[int], num_tokens: int) -> list[int]:
        """At most `num_tokens` tokens that may come next. `token_ids` only grows from call to call."""
        self._index(token_ids)
        place = self._next_places.get(tuple(token_ids[-NGRAM_LEN:]))
        return [] if place is None else token_ids[place : place + num_tokens]

    def _index(self, token_ids: list[int]) -> None:
        """Note every run that a token follows; the last run has none yet."""
        first = max(self._num_indexed, len(token_ids) - MAX_INDEXED_TOKENS, NGRAM_LEN)
        for place in range(first, len(token_ids)):
            self._next_places[tuple(token_ids[place - NGRAM_LEN : place])] = place
        self._num_indexed = len(token_ids)
