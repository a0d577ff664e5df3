"""The one check that every text from a caller passes before it meets the tokenizer."""

from __future__ import annotations

from contracts.errors import InvalidValue


def check_text(text: str, param: str) -> str:
    """Return the text, or raise InvalidValue where it holds a lone surrogate, which no UTF-8 can say."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(
            f"'{param}' holds half of a surrogate pair at character {error.start}. Send valid Unicode.", param=param
        ) from error
    return text
