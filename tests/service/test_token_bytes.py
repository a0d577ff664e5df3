"""Decoders of tokenizer.json are classified by their parts, and unknown parts are not guessed at."""

from __future__ import annotations

from typing import Any

import pytest

from service.token_bytes import Decoding, DecodingKind, byte_level_table, read_decoding

OPAQUE = Decoding(kind=DecodingKind.OPAQUE)
REPLACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "decoders": list(parts)}


def pieces(**fields: Any) -> Decoding:
    return Decoding(kind=DecodingKind.PIECES, replacements=(("▁", " "),), **fields)


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ({"type": "ByteLevel", "add_prefix_space": True}, Decoding(kind=DecodingKind.BYTE_LEVEL)),
        (sequence({"type": "ByteLevel"}, {"type": "Fuse"}), Decoding(kind=DecodingKind.BYTE_LEVEL)),
        (
            sequence(REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}, STRIP),
            pieces(has_byte_fallback=True, num_stripped_spaces=1),
        ),
        (sequence(REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}), pieces(has_byte_fallback=True)),
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, pieces(num_stripped_spaces=1)),
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}, pieces()),
        (None, OPAQUE),
        ({"type": "Fuse"}, OPAQUE),
        ({"type": "WordPiece", "prefix": "##"}, OPAQUE),
        (sequence({"type": "ByteLevel"}, STRIP), OPAQUE),
        (sequence(REPLACE, {"type": "BPEDecoder"}), OPAQUE),
        (sequence({"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}), OPAQUE),
        (sequence(REPLACE, {**STRIP, "stop": 1}), OPAQUE),
        (sequence(REPLACE, {**STRIP, "content": "_"}), OPAQUE),
    ],
)
def test_decoder_is_classified_by_its_parts(decoder: dict[str, Any] | None, expected: Decoding) -> None:
    assert read_decoding(decoder) == expected


def test_every_byte_has_one_character() -> None:
    assert sorted(byte_level_table().values()) == list(range(256))
    assert (byte_level_table()["A"], byte_level_table()["Ġ"], byte_level_table()["Ċ"]) == (0x41, 0x20, 0x0A)
