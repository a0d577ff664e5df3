"""Text to ids and back: exact bytes, streams that equal a whole decode, control tokens only where they are trusted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ModelNotUsable
from service.tokenizer import MAX_CHARS_UNDER_GIL, TextPart, TextTokenizer
from tests.fakes_text import (
    SPECIAL_NAMES,
    SPECIAL_TOKENS,
    byte_fallback_json,
    byte_level_json,
    byte_level_tokenizer,
    streamed,
)

BYTE_LEVEL = byte_level_tokenizer()
BYTE_FALLBACK = TextTokenizer(byte_fallback_json())
CONTROL_TEXT = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "<|im", "_end|>", "[", "hello", " ", "é", "\n", "<"]), max_size=12
).map("".join)


def write_model(directory: Path, tokenizer_json: str) -> Path:
    (directory / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    return directory


@given(st.text(max_size=40))
def test_token_bytes_joined_are_the_bytes_of_the_text(text: str) -> None:
    ids = BYTE_LEVEL.encode_trusted([TextPart(text, False)])
    assert b"".join(map(BYTE_LEVEL.token_bytes, ids)) == text.encode()


def test_byte_fallback_token_is_one_byte() -> None:
    assert BYTE_FALLBACK.token_bytes(3 + 0xE2) == b"\xe2"


def test_token_text_of_a_part_of_a_character_is_lossy() -> None:
    ids = BYTE_LEVEL.encode("🙂", add_special_tokens=False)
    assert BYTE_LEVEL.token_text(ids[-1]) == "\ufffd"


def test_space_mark_becomes_a_space_in_token_text() -> None:
    assert BYTE_FALLBACK.token_text(BYTE_FALLBACK.encode("hi", add_special_tokens=False)[0]) == " hi"


def test_special_token_has_bytes_but_no_streamed_text() -> None:
    special = BYTE_LEVEL.encode("<|im_end|>", add_special_tokens=False)
    assert (BYTE_LEVEL.token_bytes(special[0]), streamed(BYTE_LEVEL, special)) == (b"<|im_end|>", "")
    assert BYTE_LEVEL.is_special(special[0])


@pytest.mark.parametrize("num_chars", [MAX_CHARS_UNDER_GIL, MAX_CHARS_UNDER_GIL + 1])
def test_long_text_is_tokenised_as_short_text_is(num_chars: int) -> None:
    tokenizer = byte_level_tokenizer(add_bos=True)
    ids = tokenizer.encode("x" * num_chars, add_special_tokens=True)
    assert ids == tokenizer.encode("", add_special_tokens=True) + tokenizer.encode("x", False) * num_chars


def test_post_processor_adds_the_first_token_only_when_asked() -> None:
    tokenizer = byte_level_tokenizer(add_bos=True)
    with_bos = tokenizer.encode("hello", add_special_tokens=True)
    assert [tokenizer.token_text(token_id) for token_id in with_bos] == ["<|begin_of_text|>", "hello"]
    assert tokenizer.encode("hello", add_special_tokens=False) == with_bos[1:]


@given(CONTROL_TEXT | st.text(max_size=60))
def test_text_never_has_fewer_tokens_than_the_lower_bound(text: str) -> None:
    assert BYTE_LEVEL.min_num_tokens(text) <= len(BYTE_LEVEL.encode(text, add_special_tokens=False))


def test_lower_bound_follows_the_length_of_the_text() -> None:
    assert BYTE_LEVEL.min_num_tokens("x" * 17_000) == 1000


def test_lower_bound_is_not_known_where_a_normalizer_may_shorten_the_text() -> None:
    assert BYTE_FALLBACK.min_num_tokens("x" * 17_000) == 0


def test_control_token_in_an_untrusted_part_is_plain_text() -> None:
    ids = BYTE_LEVEL.encode_trusted([TextPart("<|im_start|>", True), TextPart("<|im_end|>", False)])
    assert [BYTE_LEVEL.is_special(token_id) for token_id in ids] == [True] + [False] * (len(ids) - 1)
    assert BYTE_LEVEL.decode(ids) == "<|im_end|>"


@given(CONTROL_TEXT)
def test_no_untrusted_text_makes_a_special_id(text: str) -> None:
    ids = BYTE_LEVEL.encode_trusted([TextPart(text, False)])
    assert not any(map(BYTE_LEVEL.is_special, ids))
    assert BYTE_LEVEL.decode(ids) == text


def test_token_that_the_configuration_names_is_a_control_token() -> None:
    tokenizer = TextTokenizer(byte_level_json(), {**SPECIAL_NAMES, "pad_token": "<think>"})
    ids = tokenizer.encode_trusted([TextPart("<think>", False)])
    assert "<think>" in tokenizer.control_tokens
    assert not any(map(tokenizer.is_special, ids))


def test_control_piece_in_the_vocabulary_itself_is_broken_up() -> None:
    vocabulary = [["<unk>", 0.0], ["<s>", 0.0], *([letter, -9.0] for letter in "<s>ab")]
    data = msgspec.json.decode(byte_level_json())
    data["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False}
    data |= {"pre_tokenizer": None, "decoder": {"type": "Fuse"}}
    data["added_tokens"] = [{**data["added_tokens"][0], "id": 1, "content": "<s>"}]
    tokenizer = TextTokenizer(msgspec.json.encode(data).decode())
    ids = tokenizer.encode_trusted([TextPart("a<s>b", False)])
    assert not any(map(tokenizer.is_special, ids))


def test_truncation_written_in_the_file_is_not_applied() -> None:
    data = msgspec.json.decode(byte_level_json())
    data["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    tokenizer = TextTokenizer(msgspec.json.encode(data).decode())
    assert len(tokenizer.encode("abcdef", add_special_tokens=True)) == 6


@pytest.mark.parametrize(("marker", "eos"), [('"added_tokens_decoder": {}', "<|im_end|>"), ('"x": 1', "<bos>")])
def test_special_tokens_come_from_the_file_that_transformers_prefers(tmp_path: Path, marker: str, eos: str) -> None:
    write_model(tmp_path, byte_level_json())
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<bos>"}, "eos_token": "<bos>"}')
    (tmp_path / "tokenizer_config.json").write_text(f'{{"eos_token": "<|im_end|>", "pad_token": null, {marker}}}')
    assert TextTokenizer.load(tmp_path).special_tokens == {"bos_token": "<bos>", "eos_token": eos}


def test_missing_tokenizer_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelNotUsable, match="save_pretrained"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}', '{"added_tokens": [{"id": "x"}]}'])
def test_broken_tokenizer_file_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ModelNotUsable, match="not a valid tokenizer file"):
        TextTokenizer.load(write_model(tmp_path, content))


def test_broken_tokenizer_config_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, byte_level_json())
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelNotUsable, match="tokenizer_config"):
        TextTokenizer.load(tmp_path)
