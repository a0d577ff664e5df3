"""Streams say what a whole decode says, hold back no more than a character, and never break one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.text_stream import MAX_WINDOW_TOKENS, WindowTextStream
from service.tokenizer import TextPart, TextTokenizer
from tests.fakes_text import byte_fallback_json, byte_level_json, byte_level_tokenizer, streamed, word_piece_json

BYTE_LEVEL = byte_level_tokenizer()
BYTE_FALLBACK = TextTokenizer(byte_fallback_json())


@given(st.lists(st.integers(0, BYTE_LEVEL.vocab_size - 1), max_size=60))
def test_streamed_text_equals_whole_decode_for_any_ids_of_byte_level(ids: list[int]) -> None:
    assert streamed(BYTE_LEVEL, ids) == BYTE_LEVEL.decode(ids)


@given(st.text(max_size=40))
def test_text_survives_encode_and_streamed_decode(text: str) -> None:
    assert streamed(BYTE_LEVEL, BYTE_LEVEL.encode_trusted([TextPart(text, False)])) == text


@given(st.text(st.sampled_from("hié €🙂"), max_size=20))
def test_streamed_text_equals_whole_decode_with_byte_fallback(text: str) -> None:
    ids = BYTE_FALLBACK.encode(text, add_special_tokens=False)
    assert streamed(BYTE_FALLBACK, ids) == BYTE_FALLBACK.decode(ids)


def test_stream_that_continues_a_prompt_keeps_the_leading_space() -> None:
    ids = BYTE_FALLBACK.encode("hi", add_special_tokens=False)
    stream = BYTE_FALLBACK.stream(continues_prompt=True)
    assert "".join(map(stream.push, ids)) == " hi"


def test_stream_that_starts_a_text_drops_the_leading_space() -> None:
    assert streamed(BYTE_FALLBACK, BYTE_FALLBACK.encode("hi hi", add_special_tokens=False)) == "hi hi"


def test_id_of_a_padding_row_has_no_text() -> None:
    assert streamed(BYTE_LEVEL, [BYTE_LEVEL.vocab_size + 3]) == ""
    assert BYTE_LEVEL.token_bytes(BYTE_LEVEL.vocab_size + 3) == b""


def test_incomplete_character_is_held_back_and_flushed_as_replacement() -> None:
    ids = BYTE_LEVEL.encode("🙂", add_special_tokens=False)
    stream = BYTE_LEVEL.stream()
    held = [stream.push(token_id) for token_id in ids[:-1]]
    assert (held, stream.has_pending, stream.flush()) == ([""] * (len(ids) - 1), True, "\ufffd")


def test_window_stream_gives_the_joined_words() -> None:
    tokenizer = TextTokenizer(word_piece_json())
    assert streamed(tokenizer, [1, 2, 3, 4, 1]) == tokenizer.decode([1, 2, 3, 4, 1])


def test_window_stream_never_holds_more_than_its_window() -> None:
    stream = WindowTextStream(Tokenizer.from_str(byte_level_json()), frozenset())
    broken = BYTE_LEVEL.encode("🙂", add_special_tokens=False)[-1]
    pieces = [stream.push(broken) for _ in range(3 * MAX_WINDOW_TOKENS)]
    assert "".join(pieces) == "\ufffd" * (3 * MAX_WINDOW_TOKENS)
