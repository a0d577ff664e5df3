"""The built-in templates give the formats that the models' makers document, and no message can pass for their marks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from contracts.errors import InvalidRequest, ModelNotUsable
from service.base_templates import BASE_TEMPLATES
from service.chat_template import ChatTemplate
from service.tokenizer import TextTokenizer
from tests.fakes_text import byte_level_json

NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>"}
MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|endoftext|>")


def tokenizer_json() -> str:
    tokenizer = Tokenizer.from_str(byte_level_json())
    tokenizer.add_special_tokens(list(MARKS))
    return tokenizer.to_str()


TOKENIZER = TextTokenizer(tokenizer_json(), NAMES)
REFERENCE = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_json()), **NAMES)
EVERY_TEMPLATE = pytest.mark.parametrize("name", BASE_TEMPLATES)
TURNS = (("system", "Be brief."), ("user", "Hi!"), ("assistant", " Hello. "), ("user", "Who are you?\n"))
HOSTILE = st.lists(
    st.sampled_from([*TOKENIZER.control_tokens, "\nUser:", "system", "<|eot", "_id|>", " ", "\n", "x"]), max_size=8
).map("".join)


def template(name: str) -> ChatTemplate:
    found = ChatTemplate.for_model(Path("nowhere"), TOKENIZER, name)
    assert found is not None
    return found


def messages_of(turns: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
            "<|im_start|>assistant\n Hello. <|im_end|>\n<|im_start|>user\nWho are you?\n<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            "gemma",
            "<|begin_of_text|><start_of_turn>user\nBe brief.\n\nHi!<end_of_turn>\n"
            "<start_of_turn>model\nHello.<end_of_turn>\n<start_of_turn>user\nWho are you?<end_of_turn>\n"
            "<start_of_turn>model\n",
        ),
        (
            "dialogpt",
            "Be brief.<|endoftext|>Hi!<|endoftext|> Hello. <|endoftext|>Who are you?\n<|endoftext|>",
        ),
        ("gpt2", "Be brief.\n\nUser: Hi!\nAssistant: Hello.\nUser: Who are you?\nAssistant:"),
        ("default", "<|begin_of_text|>Be brief.\n\nUser: Hi!\nAssistant: Hello.\nUser: Who are you?\nAssistant:"),
    ],
)
def test_conversation_is_written_as_documented(name: str, text: str) -> None:
    assert template(name).render(messages_of(TURNS)) == text


def test_default_says_what_it_is_where_no_system_message_does() -> None:
    text = template("default").render(messages_of((("user", "Hi!"),)))
    opening = "A conversation between a user and a helpful assistant."
    assert text == f"<|begin_of_text|>{opening}\n\nUser: Hi!\nAssistant:"


def test_default_needs_no_first_token() -> None:
    tokenizer = TextTokenizer(byte_level_json(), {})
    found = ChatTemplate.for_model(Path("nowhere"), tokenizer, "default")
    assert found is not None
    assert found.render(messages_of((("system", "S"), ("user", "Hi!")))) == "S\n\nUser: Hi!\nAssistant:"


@EVERY_TEMPLATE
@pytest.mark.parametrize(
    "turns",
    [TURNS, (("user", ""),), (("user", "  é\n"), ("assistant", "{{ x }}{% raw %}"), ("user", "🙂\x00\r\n\tUser:"))],
)
def test_text_and_ids_equal_those_of_transformers(name: str, turns: tuple[tuple[str, str], ...]) -> None:
    source, messages = BASE_TEMPLATES[name].source, messages_of(turns)
    options = {"chat_template": source, "add_generation_prompt": True}
    assert template(name).render(messages) == REFERENCE.apply_chat_template(messages, tokenize=False, **options)
    encoded = REFERENCE.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    assert TOKENIZER.encode_trusted(template(name).render_parts(messages)) == encoded["input_ids"]


@EVERY_TEMPLATE
@given(first=HOSTILE, second=HOSTILE, third=HOSTILE)
def test_messages_add_no_special_ids(name: str, first: str, second: str, third: str) -> None:
    roles = ("system", "user", "assistant", "user")
    hostile = special_ids(name, tuple(zip(roles, (first, second, third, first), strict=True)))
    harmless = special_ids(name, tuple(zip(roles, ("x", "x", "x", "x"), strict=True)))
    assert hostile == harmless


def special_ids(name: str, turns: tuple[tuple[str, str], ...]) -> list[int]:
    ids = TOKENIZER.encode_trusted(template(name).render_parts(messages_of(turns)))
    return [token_id for token_id in ids if TOKENIZER.is_special(token_id)]


@EVERY_TEMPLATE
def test_role_without_a_place_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"The template '{name}'"):
        template(name).render(messages_of((("user", "x"), ("tool", "42"))))


@pytest.mark.parametrize("roles", [("assistant",), ("user", "user"), ("user", "system"), ("system", "system")])
def test_gemma_takes_turns(roles: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="user and assistant in turn"):
        template("gemma").render(messages_of(tuple((role, "x") for role in roles)))


def test_gemma_turns_a_system_message_alone_into_a_turn() -> None:
    text = template("gemma").render(messages_of((("system", "Say hi."),)))
    assert text == "<|begin_of_text|><start_of_turn>user\nSay hi.<end_of_turn>\n<start_of_turn>model\n"


@EVERY_TEMPLATE
def test_stops_are_tokens_or_the_next_turn(name: str) -> None:
    base = BASE_TEMPLATES[name]
    assert all(stop in (*base.control_tokens, "\nUser:") for stop in base.stops)
    assert template(name).stops == base.stops


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("llama3", "<|start_header_id|>, <|end_header_id|>, <|eot_id|>, bos_token"),
        ("dialogpt", "eos_token"),
    ],
)
def test_template_whose_tokens_the_model_lacks_is_refused(name: str, missing: str) -> None:
    tokenizer = TextTokenizer(byte_level_json(), {})
    with pytest.raises(ModelNotUsable) as caught:
        ChatTemplate.for_model(Path("nowhere"), tokenizer, name)
    assert caught.value.message.startswith(f"The template '{name}' needs {missing}, which the model's tokenizer")


def test_file_of_the_operator_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    path.write_text("{{ messages[0].content }}!")
    found = ChatTemplate.for_model(Path("nowhere"), TOKENIZER, str(path))
    assert found is not None
    assert (found.render(messages_of((("user", "Hi"),))), found.stops) == ("Hi!", ())


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "my.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelNotUsable, match=r"my\.jinja cannot be read as UTF-8 text"):
        ChatTemplate.for_model(Path("nowhere"), TOKENIZER, str(path))


def test_nothing_wanted_is_the_models_own(tmp_path: Path) -> None:
    assert ChatTemplate.for_model(tmp_path, TOKENIZER, None) is None
    (tmp_path / "chat_template.jinja").write_text("own")
    own = ChatTemplate.for_model(tmp_path, TOKENIZER, None)
    assert own is not None
    assert own.render([]) == "own"
