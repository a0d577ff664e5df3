"""The four shapes of a completion prompt become token ids; anything else is refused by its place."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.errors import InvalidValue
from service.prompts import EncodedPrompt, encode_prompts
from tests.fakes_text import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
VOCAB_SIZE = TOKENIZER.vocab_size


def encoded(prompt: Any, wants_text: bool = False) -> list[EncodedPrompt]:
    return encode_prompts(prompt, TOKENIZER, VOCAB_SIZE, wants_text=wants_text)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("", "prompt"),
        (" \n\t", "prompt"),
        ([], "prompt"),
        ([[]], "prompt[0]"),
        (["a", ""], "prompt[1]"),
        ([[1], []], "prompt[1]"),
        (["a", 1], "prompt"),
        ([1, "a"], "prompt"),
        ([1, [1]], "prompt"),
        (["a", [1]], "prompt"),
        ([-1], "prompt[0]"),
        ([1, VOCAB_SIZE], "prompt[1]"),
        ([2**31], "prompt[0]"),
        ([[1], [2, 2**63]], "prompt[1][1]"),
        ("a\ud800", "prompt"),
        (["a", "\udc00"], "prompt[1]"),
    ],
)
def test_prompt_that_is_empty_mixed_or_out_of_range_is_named(prompt: object, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encoded(prompt)
    assert caught.value.param == param
    assert len(caught.value.message) < 300


def test_true_is_no_token_id() -> None:
    with pytest.raises(InvalidValue) as caught:
        encoded([True, 1])
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("prompt", "num_prompts"), [("ab", 1), (["ab", "c"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["a"] * 64, 64)]
)
def test_each_prompt_is_encoded_apart(prompt: object, num_prompts: int) -> None:
    assert len(encoded(prompt)) == num_prompts


@pytest.mark.parametrize(
    ("prompt", "echoes"),
    [("hello <|im_end|>", ["hello <|im_end|>"]), (["a", "b"], ["a", "b"]), ([0, 1], [TOKENIZER.decode([0, 1])])],
)
def test_text_of_a_prompt_is_kept_for_echo(prompt: object, echoes: list[str]) -> None:
    assert [one.text for one in encoded(prompt, wants_text=True)] == echoes


def test_prompt_is_not_kept_without_echo() -> None:
    assert encoded("hello")[0].text is None
