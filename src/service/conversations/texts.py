"""Texts that are to be kept: which are refused, and how a title is made. Knows no requests and no database."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from contracts.errors import InvalidValue
from service.text_checks import check_text

DEFAULT_TITLE_LEN: Final = 50
_DIRECTION_MARKS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the order in which the rest of a line is shown."""
_SPACES = re.compile(r"\s+")


def check_kept(text: str, param: str) -> str:
    """The text, or InvalidValue where it is not Unicode or holds a NUL, which PostgreSQL cannot keep."""
    check_text(text, param)
    if "\0" in text:
        raise InvalidValue(
            f"'{param}' holds a NUL at character {text.index(chr(0))}, which no conversation can keep. Remove it.",
            param=param,
        )
    return text


def check_title(title: str) -> str:
    """The title, or InvalidValue where it could spoil a terminal or a list, or shows nothing."""
    check_kept(title, "title")
    for index, character in enumerate(title):
        if is_unfit(character):
            raise InvalidValue(
                f"'title' holds the control character U+{ord(character):04X} at character {index}. Remove it.",
                param="title",
            )
    if not title.strip():
        raise InvalidValue("'title' is empty. Give a text, or leave it out.", param="title")
    return title


def clean_title(text: str) -> str | None:
    """One line of the text without control characters; None where nothing is left."""
    spaced = "".join(" " if is_unfit(character) else character for character in text)
    return _SPACES.sub(" ", spaced).strip() or None


def default_title(text: str) -> str | None:
    """The beginning of a first message."""
    title = clean_title(text[: 16 * DEFAULT_TITLE_LEN])
    return None if title is None else title[:DEFAULT_TITLE_LEN].rstrip()


def is_unfit(character: str) -> bool:
    """Whether a title may not hold the character."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in _DIRECTION_MARKS
