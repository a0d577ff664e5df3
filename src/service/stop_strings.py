"""Finding the first stop string in text that arrives in pieces. Knows no tokens.

An Aho-Corasick automaton (Aho and Corasick 1975) over the stop strings: one table look-up per character, whatever
their number and length. The depth of the state is the length of the longest suffix that may still become a stop
string, which is exactly what has to be held back.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


class StopStrings:
    """Immutable once built; shared by the samples of a request, each with a state of its own (0 at the start).

    The stop string that is complete first wins; of several complete at the same character, the longest.
    """

    __slots__ = ("_match_lens", "_next_states", "_starts", "depths")

    def __init__(self, strings: Sequence[str]) -> None:
        self.depths: list[int] = [0]
        """State -> characters to hold back."""
        self._match_lens: list[int] = [0]
        self._next_states: list[dict[str, int]] = [{}]
        for string in strings:
            self._add(string)
        starts = list(self._next_states[0])
        self._close()
        self._starts = re.compile("[" + "".join(re.escape(start) for start in starts) + "]")

    def scan(self, state: int, text: str) -> tuple[int, int, int]:
        """Read text from a state; return (new state, end of the first match or 0, its length or 0).

        `end` is an offset in text; the match may have begun in earlier text.
        """
        first = 0
        if state == 0:
            start = self._starts.search(text)
            if start is None:
                return 0, 0, 0
            first = start.start()
        next_states, match_lens = self._next_states, self._match_lens
        for position in range(first, len(text)):
            state = next_states[state].get(text[position], 0)
            if match_lens[state]:
                return state, position + 1, match_lens[state]
        return state, 0, 0

    def _add(self, string: str) -> None:
        state = 0
        for character in string:
            following = self._next_states[state].get(character)
            if following is None:
                following = len(self._next_states)
                self._next_states[state][character] = following
                self._next_states.append({})
                self.depths.append(self.depths[state] + 1)
                self._match_lens.append(0)
            state = following
        self._match_lens[state] = len(string)

    def _close(self) -> None:
        """Give every state the transitions of its longest proper suffix, breadth first; the root's are the default."""
        suffix_of = dict.fromkeys(self._next_states[0].values(), 0)
        queue = deque(suffix_of)
        while queue:
            state = queue.popleft()
            suffix = suffix_of[state]
            self._match_lens[state] = self._match_lens[state] or self._match_lens[suffix]
            children = self._next_states[state]
            for character, child in children.items():
                suffix_of[child] = self._next_states[suffix].get(character, 0)
                queue.append(child)
            self._next_states[state] = {**self._next_states[suffix], **children}
