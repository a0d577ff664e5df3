"""What bytes each token id stands for: byte-level BPE, byte fallback and plain pieces. Knows no requests.

The kind is read from the `decoder` of tokenizer.json. A decoder made of unknown parts is `OPAQUE`: its text is only
known for whole runs of ids, and a token's bytes are those of its name in the vocabulary.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from tokenizers import Tokenizer

BYTE_TOKEN_LEN = len("<0x00>")


class DecodingKind(enum.Enum):
    """How the vocabulary spells bytes."""

    BYTE_LEVEL = "byte_level"
    """Every character of a piece is one byte (GPT-2's table)."""
    PIECES = "pieces"
    """Pieces are text, with replacements such as `▁` for a space, and maybe `<0xE2>` for single bytes."""
    OPAQUE = "opaque"


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """The part of tokenizer.json's decoder that says how ids become bytes."""

    kind: DecodingKind
    replacements: tuple[tuple[str, str], ...] = ()
    has_byte_fallback: bool = False
    num_stripped_spaces: int = 0
    """Spaces dropped from the start of a text that does not continue another."""


def read_decoding(decoder: Mapping[str, Any] | None) -> Decoding:
    """Classify a tokenizer.json decoder; `Sequence` is taken apart."""
    opaque = Decoding(kind=DecodingKind.OPAQUE)
    if decoder is None:
        return opaque
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    types = {part["type"] for part in parts}
    if "ByteLevel" in types:
        return Decoding(kind=DecodingKind.BYTE_LEVEL) if types <= {"ByteLevel", "Fuse"} else opaque
    if not types <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"} or not types - {"Fuse"}:
        return opaque
    replacements: list[tuple[str, str]] = []
    num_stripped = 0
    for part in parts:
        if part["type"] == "Replace":
            if "String" not in part["pattern"]:
                return opaque
            replacements.append((part["pattern"]["String"], part["content"]))
        elif part["type"] == "Metaspace":
            replacements.append((part["replacement"], " "))
            num_stripped += part.get("prepend_scheme", "always") != "never"
        elif part["type"] == "Strip":
            if part["content"] != " " or part["stop"] != 0:
                return opaque
            num_stripped += part["start"]
    return Decoding(
        kind=DecodingKind.PIECES,
        replacements=tuple(replacements),
        has_byte_fallback="ByteFallback" in types,
        num_stripped_spaces=num_stripped,
    )


def byte_level_table() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: character -> byte (Radford et al. 2019, encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(256 + position): byte for position, byte in enumerate(others)})
    return table


class TokenBytes(dict[int, bytes]):
    """Token id -> its exact bytes, filled on first use; ids without a token (padding rows) have none."""

    def __init__(self, tokenizer: Tokenizer, decoding: Decoding, special_ids: frozenset[int]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._special_ids = special_ids
        self._byte_level = byte_level_table() if decoding.kind is DecodingKind.BYTE_LEVEL else {}
        self._byte_token = re.compile(r"<0x[0-9A-Fa-f]{2}>")

    def __missing__(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        value = b"" if piece is None else self._bytes_of(piece, token_id in self._special_ids)
        self[token_id] = value
        return value

    def _bytes_of(self, piece: str, is_special: bool) -> bytes:
        if is_special or self._decoding.kind is DecodingKind.OPAQUE:
            return piece.encode()
        if self._decoding.kind is DecodingKind.BYTE_LEVEL:
            table = self._byte_level
            if all(character in table for character in piece):
                return bytes([table[character] for character in piece])
            return piece.encode()
        if self._decoding.has_byte_fallback and len(piece) == BYTE_TOKEN_LEN and self._byte_token.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        for old, new in self._decoding.replacements:
            piece = piece.replace(old, new)
        return piece.encode()
