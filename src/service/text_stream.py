"""Token ids to text, one id at a time, never a broken character. Knows neither stop strings nor requests.

`ByteTextStream` works on the tokens' bytes: exact, and constant work per token whatever came before.
`WindowTextStream` serves decoders whose parts are not known: it decodes a short window of ids twice.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Protocol

from tokenizers import Tokenizer

from service.token_bytes import TokenBytes

MAX_WINDOW_TOKENS = 16
"""Ids that a WindowTextStream may hold back waiting for a character to complete."""


class TextStream(Protocol):
    """Incremental decoding of one sample; special tokens have no text."""

    @property
    def has_pending(self) -> bool:
        """The last tokens are the beginning of a character that is not complete."""
        ...

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, often all of its own, sometimes none."""
        ...

    def flush(self) -> str:
        """Return what is pending as replacement characters; the stream is at its end."""
        ...


class TextPieces(dict[int, str | bytes]):
    """Token id -> its text where that is whole characters, else its bytes; special tokens are empty."""

    def __init__(self, token_bytes: TokenBytes, special_ids: frozenset[int]) -> None:
        super().__init__()
        self._token_bytes = token_bytes
        self._special_ids = special_ids

    def __missing__(self, token_id: int) -> str | bytes:
        data = b"" if token_id in self._special_ids else self._token_bytes[token_id]
        text = data.decode("utf-8", "replace")
        value: str | bytes = text if text.encode() == data else data
        self[token_id] = value
        return value


class ByteTextStream:
    """Owner: one sample. Holds at most the three bytes of an incomplete character.

    Equal to a whole decode, but for byte-fallback tokens that are no UTF-8: the library then marks every byte of the
    run as U+FFFD, which no stream can know in time; here the whole characters of the run stay.
    """

    __slots__ = ("_num_spaces_to_strip", "_pending", "_pieces")

    def __init__(self, pieces: TextPieces, num_stripped_spaces: int) -> None:
        self._pieces = pieces
        self._pending = b""
        self._num_spaces_to_strip = num_stripped_spaces

    @property
    def has_pending(self) -> bool:
        return bool(self._pending)

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; bytes that can no longer become a character are U+FFFD."""
        piece = self._pieces[token_id]
        if not self._pending and type(piece) is str:
            return self._strip(piece) if self._num_spaces_to_strip else piece
        if not piece:
            return ""
        data = self._pending + (piece.encode() if isinstance(piece, str) else piece)
        text, num_used = utf_8_decode(data, "replace", False)
        self._pending = data[num_used:]
        return self._strip(text) if self._num_spaces_to_strip else text

    def flush(self) -> str:
        text, _ = utf_8_decode(self._pending, "replace", True)
        self._pending = b""
        return text

    def _strip(self, text: str) -> str:
        while self._num_spaces_to_strip and text.startswith(" "):
            text = text[1:]
            self._num_spaces_to_strip -= 1
        if text:
            self._num_spaces_to_strip = 0
        return text


class WindowTextStream:
    """Owner: one sample. Keeps the ids of the last emitted piece and those after it, so that joins come out right."""

    __slots__ = ("_ids", "_num_emitted", "_special_ids", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._ids: list[int] = []
        self._num_emitted = 0

    @property
    def has_pending(self) -> bool:
        return len(self._ids) > self._num_emitted

    def push(self, token_id: int) -> str:
        if token_id in self._special_ids:
            return ""
        self._ids.append(token_id)
        text = self._new_text()
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._ids) - self._num_emitted < MAX_WINDOW_TOKENS:
            return ""
        self._advance()
        return text

    def flush(self) -> str:
        if not self.has_pending:
            return ""
        text = self._new_text()
        self._advance()
        return text

    def _new_text(self) -> str:
        known = self._tokenizer.decode(self._ids[: self._num_emitted], skip_special_tokens=True)
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)[len(known) :]

    def _advance(self) -> None:
        self._ids = self._ids[self._num_emitted :]
        self._num_emitted = len(self._ids)
