"""The `prompt` of /v1/completions in its four shapes, as token ids. Knows no sampling and no limits of the model."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.errors import InvalidValue
from contracts.openai.completions import Prompt
from service.text_checks import check_text
from service.tokenizer import TextTokenizer


class EncodedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt; `text` is set only where it will be echoed."""

    token_ids: list[int]
    text: str | None


def encode_prompts(
    prompt: Prompt, tokenizer: TextTokenizer, vocab_size: int, *, wants_text: bool
) -> list[EncodedPrompt]:
    """Return one prompt per text or list of ids; InvalidValue, naming the place, for anything empty or mixed."""
    if isinstance(prompt, str):
        return [_encode_text(prompt, "prompt", tokenizer, wants_text)]
    if not prompt:
        raise _empty("prompt")
    if all(type(item) is int for item in prompt):
        return [_check_ids(list(prompt), "prompt", tokenizer, vocab_size, wants_text)]
    if all(isinstance(item, str) for item in prompt):
        return [_encode_text(str(item), f"prompt[{index}]", tokenizer, wants_text) for index, item in enumerate(prompt)]
    if all(isinstance(item, list) for item in prompt):
        return [
            _check_ids(item, f"prompt[{index}]", tokenizer, vocab_size, wants_text) for index, item in enumerate(prompt)
        ]
    raise InvalidValue(
        "'prompt' mixes texts and token ids. Send a text, a list of texts, a list of ids or a list of such lists.",
        param="prompt",
    )


def _encode_text(text: str, param: str, tokenizer: TextTokenizer, wants_text: bool) -> EncodedPrompt:
    if not text or text.isspace():
        raise _empty(param)
    token_ids = tokenizer.encode(check_text(text, param), add_special_tokens=True)
    if not token_ids:
        raise _empty(param)
    return EncodedPrompt(token_ids=token_ids, text=text if wants_text else None)


def _check_ids(
    token_ids: Any, param: str, tokenizer: TextTokenizer, vocab_size: int, wants_text: bool
) -> EncodedPrompt:
    if not token_ids:
        raise _empty(param)
    for index, token_id in enumerate(token_ids):
        if type(token_id) is not int or not 0 <= token_id < vocab_size:
            raise InvalidValue(
                f"'{param}[{index}]' is {str(token_id)[:40]}, but token ids are whole numbers from 0 to "
                f"{vocab_size - 1}.",
                param=f"{param}[{index}]",
            )
    text = tokenizer.decode(token_ids, skip_special_tokens=False) if wants_text else None
    return EncodedPrompt(token_ids=token_ids, text=text)


def _empty(param: str) -> InvalidValue:
    return InvalidValue(f"'{param}' is empty. Send at least one token of text.", param=param)
