"""What a sample sends: whole characters, nothing of a stop string, everything else, in any chunking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.generation import FinishReason, GenerationDelta, TokenLogprob
from service.detokenizer import MIN_LOGPROB, LogprobEntry, SampleText, TextPiece, sample_texts
from service.stop_strings import StopStrings
from tests.fakes_text import byte_level_tokenizer, delta, text_request

TOKENIZER = byte_level_tokenizer()
ABC_IDS = tuple(TOKENIZER.encode("a", False) + TOKENIZER.encode("b", False) + TOKENIZER.encode("c", False))
STOP_STRINGS = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4, unique=True)


def make(stop: Sequence[str] = (), wants_logprobs: bool = False) -> SampleText:
    return sample_texts(TOKENIZER, text_request(stop, wants_logprobs=wants_logprobs))[0]


def push_all(sample: SampleText, deltas: list[GenerationDelta]) -> list[TextPiece]:
    return [sample.push(one) for one in deltas]


def text_of(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def entries_of(pieces: list[TextPiece]) -> list[LogprobEntry]:
    return [entry for piece in pieces for entry in piece.logprobs]


def chunked(ids: list[int], chunk_lens: list[int], wants_logprobs: bool = False) -> Iterator[GenerationDelta]:
    """Cut ids into deltas of the given lengths, then the rest; the last ends at the length limit."""
    start = 0
    for chunk_len in chunk_lens:
        yield with_logprobs(ids[start : start + chunk_len], None, wants_logprobs)
        start += chunk_len
    yield with_logprobs(ids[start:], FinishReason.LENGTH, wants_logprobs)


def with_logprobs(ids: list[int], reason: FinishReason | None, wants_logprobs: bool) -> GenerationDelta:
    logprobs = [TokenLogprob(-0.5, [(token_id, -0.5)]) for token_id in ids] if wants_logprobs else None
    return delta(ids, reason, logprobs=logprobs)


def cut_at_first_stop(text: str, stop: list[str]) -> str:
    """The slow reference: the stop string that is complete first, of several the longest."""
    for end in range(len(text) + 1):
        lens = [len(string) for string in stop if text[:end].endswith(string)]
        if lens:
            return text[: end - max(lens)]
    return text


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60), st.lists(st.integers(0, 5), max_size=10))
def test_pieces_of_any_ids_in_any_chunking_are_the_whole_text(ids: list[int], chunk_lens: list[int]) -> None:
    assert text_of(push_all(make(), list(chunked(ids, chunk_lens)))) == TOKENIZER.decode(ids)


@given(st.lists(st.sampled_from(ABC_IDS), max_size=60), st.lists(st.integers(0, 5), max_size=10), STOP_STRINGS)
def test_text_is_cut_at_the_first_stop_string_in_any_chunking(
    ids: list[int], chunk_lens: list[int], stop: list[str]
) -> None:
    text = text_of(push_all(make(stop), list(chunked(ids, chunk_lens))))
    assert text == cut_at_first_stop(TOKENIZER.decode(ids), stop)


@given(
    st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60),
    st.lists(st.integers(0, 5), max_size=10),
    st.lists(st.text("hello wé🙂\ufffd", min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_stop_strings_cut_random_bytes_in_any_chunking(ids: list[int], chunk_lens: list[int], stop: list[str]) -> None:
    text = text_of(push_all(make(stop), list(chunked(ids, chunk_lens, wants_logprobs=True))))
    assert text == cut_at_first_stop(TOKENIZER.decode(ids), stop)


@given(st.lists(st.sampled_from(ABC_IDS), max_size=40), st.lists(st.integers(0, 5), max_size=10), STOP_STRINGS)
def test_entries_are_those_of_the_sent_text_in_any_chunking(
    ids: list[int], chunk_lens: list[int], stop: list[str]
) -> None:
    pieces = push_all(make(stop, wants_logprobs=True), list(chunked(ids, chunk_lens, wants_logprobs=True)))
    assert "".join(entry.text for entry in entries_of(pieces)) == text_of(pieces)


@given(st.lists(st.sampled_from(ABC_IDS), max_size=60), STOP_STRINGS)
def test_what_is_sent_early_is_never_taken_back(ids: list[int], stop: list[str]) -> None:
    sample = make(stop)
    pieces = [sample.push(delta([token_id])) for token_id in ids]
    assert cut_at_first_stop(TOKENIZER.decode(ids), stop).startswith(text_of(pieces))


def test_plain_token_is_sent_at_once() -> None:
    assert make(["xyz"]).push(delta(TOKENIZER.encode("hello", False))) == TextPiece(text="hello")


def test_beginning_of_a_stop_string_is_held_back_until_it_fails() -> None:
    sample = make(["ab!"])
    pieces = push_all(sample, [delta([token_id]) for token_id in TOKENIZER.encode("xabab?", False)])
    assert [piece.text for piece in pieces] == ["x", "", "", "ab", "", "ab?"]


def test_stop_string_over_tokens_ends_the_sample() -> None:
    sample = make(["ab!"])
    pieces = push_all(sample, [delta([token_id]) for token_id in TOKENIZER.encode("xab!y", False)])
    assert text_of(pieces) == "x"
    assert pieces[3] == TextPiece(finish_reason="stop", is_stopped_by_string=True)
    assert pieces[4] == TextPiece()
    assert (sample.finish_reason, sample.num_tokens) == ("stop", 4)


def test_tokens_after_a_stop_string_in_the_same_delta_are_not_counted() -> None:
    sample = make(["b"])
    sample.push(delta(TOKENIZER.encode("abcc", False)))
    assert sample.num_tokens == 2


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two one", ["two", "one"], ""),
        ("xaab", ["ab", "aab"], "x"),
        ("aabaac", ["aabaad", "ac"], "aaba"),
        ("xabcd", ["abcd", "bc"], "xa"),
        ("a\x00b", ["\x00"], "a"),
        ("café🙂!", ["🙂"], "café"),
        ("]^-\\", ["^-"], "]"),
    ],
)
def test_first_complete_stop_string_wins_and_of_equals_the_longest(text: str, stop: list[str], expected: str) -> None:
    assert text_of([make(stop).push(delta(TOKENIZER.encode(text, False), FinishReason.LENGTH))]) == expected


def test_length_flushes_what_is_held_back() -> None:
    piece = make(["ab!"]).push(delta(TOKENIZER.encode("xab", False), FinishReason.LENGTH))
    assert piece == TextPiece(text="xab", finish_reason="length")


def test_incomplete_character_is_flushed_as_replacement_at_the_end() -> None:
    ids = TOKENIZER.encode("🙂", False)[:-1]
    assert make().push(delta(ids, FinishReason.LENGTH)).text == "\ufffd"


def test_end_token_has_no_text_but_is_counted() -> None:
    ids = [*TOKENIZER.encode("hi", False), *TOKENIZER.encode("!", False)]
    sample = make()
    piece = sample.push(delta(ids, FinishReason.STOP, ended_by_token=True))
    assert (piece.text, piece.finish_reason, piece.is_stopped_by_string) == ("hi", "stop", False)
    assert sample.num_tokens == len(ids)


def test_end_token_has_no_log_probability_entry() -> None:
    ids = TOKENIZER.encode("ab", False)
    logprobs = [TokenLogprob(-1.0, []), TokenLogprob(-2.0, [])]
    piece = make(wants_logprobs=True).push(delta(ids, FinishReason.STOP, ended_by_token=True, logprobs=logprobs))
    assert [entry.logprob for entry in piece.logprobs] == [-1.0]


def test_final_delta_without_tokens_only_ends() -> None:
    assert make().push(delta([], FinishReason.STOP)) == TextPiece(finish_reason="stop")


@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.DEADLINE, FinishReason.ERROR])
def test_other_ends_carry_their_name_for_the_caller(reason: FinishReason) -> None:
    assert make().push(delta([], reason)).finish_reason == reason.value


def test_entries_carry_exact_bytes_and_offsets_and_a_floor() -> None:
    ids = TOKENIZER.encode("aé", False)
    logprobs = [TokenLogprob(float("-inf"), [(ids[1], float("-inf"))]), TokenLogprob(-2.0, [])]
    piece = make(wants_logprobs=True).push(delta(ids, logprobs=logprobs))
    first, second = piece.logprobs
    assert (first.text, first.bytes, first.logprob, first.text_offset) == ("a", b"a", MIN_LOGPROB, 0)
    assert first.top[0].bytes == "é".encode()
    assert (second.text, second.bytes, second.text_offset) == ("é", "é".encode(), 1)


def test_entries_of_a_character_in_parts_wait_for_the_character() -> None:
    ids = TOKENIZER.encode("🙂", False)
    pieces = push_all(make(wants_logprobs=True), [with_logprobs([token_id], None, True) for token_id in ids])
    assert [len(piece.logprobs) for piece in pieces] == [0] * (len(ids) - 1) + [len(ids)]
    assert b"".join(entry.bytes for entry in entries_of(pieces)) == "🙂".encode()


def test_entries_of_a_cut_character_are_dropped_with_it() -> None:
    ids = TOKENIZER.encode("a🙂", False)
    pieces = push_all(make(["🙂"], True), [with_logprobs([token_id], None, True) for token_id in ids])
    assert [entry.text for entry in entries_of(pieces)] == ["a"]


def test_entry_of_a_partly_cut_token_is_dropped() -> None:
    ids = TOKENIZER.encode("hello", False)
    piece = make(["llo"], True).push(with_logprobs(ids, None, True))
    assert (piece.text, piece.logprobs) == ("he", [])


def test_samples_of_a_request_end_apart() -> None:
    first, second = sample_texts(TOKENIZER, text_request(["b"], num_samples=2))
    first.push(delta(TOKENIZER.encode("ab", False)))
    assert (first.finish_reason, second.finish_reason) == ("stop", None)


class CountingStopStrings(StopStrings):
    """Counts the characters it is given; the automaton does one look-up for each at most."""

    __slots__ = ("num_chars",)

    def __init__(self, strings: Sequence[str]) -> None:
        super().__init__(strings)
        self.num_chars = 0

    def scan(self, state: int, text: str) -> tuple[int, int, int]:
        self.num_chars += len(text)
        return super().scan(state, text)


def test_each_character_of_a_long_text_is_scanned_once() -> None:
    stop_strings = ["a" * 255 + "b", "a" * 256 + "b", "c" + "a" * 254 + "b", "ab"]
    stop = CountingStopStrings(stop_strings)
    sample = SampleText(TOKENIZER, text_request(stop_strings), stop)
    token_id = ABC_IDS[0]
    num_sent = sum(len(sample.push(delta([token_id])).text) for _ in range(100_000))
    assert stop.num_chars == 100_000
    assert num_sent == 100_000 - 256
