"""Text of a model or a file on its way to a terminal: nothing in it may act on the terminal. Pure."""

from __future__ import annotations

import re
from typing import Final

_ACTING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and line feed
    "\u2028\u2029\u202a-\u202e\u2066-\u2069]"  # other line ends, and marks that turn the direction of the rest
)


def make_harmless(text: str) -> str:
    """The text without what could move the cursor, change colours, or reorder a line."""
    return _ACTING.sub("", text)
