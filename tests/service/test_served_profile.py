"""A declared profile reaches requests: its template and where that ends an answer, its defaults, base or chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.errors import InvalidRequest, ModelNotUsable
from contracts.generation import FinishReason
from contracts.model_catalog import ModelProfile, ProfileSampling
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import CompletionRequest
from service.detokenizer import sample_texts
from service.engine_provider import load_served_model
from service.translate import Limits, ServedModel, TextRequest, translate_chat, translate_completion
from tests.fakes import EOS, fake_engine_info, write_byte_model
from tests.fakes_text import delta


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    """A model without a chat template."""
    path = write_byte_model(tmp_path / "base")
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return path


@pytest.fixture
def chat_path(tmp_path: Path) -> Path:
    return write_byte_model(tmp_path / "chat")


def served(path: Path, **profile: Any) -> ServedModel:
    return load_served_model(fake_engine_info(path), ModelProfile(alias="mine", model=str(path), **profile))


def chat(model: ServedModel, **fields: Any) -> TextRequest:
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    return translate_chat(msgspec.convert(body, ChatCompletionRequest), model, "id", Limits())


def completion(model: ServedModel, **fields: Any) -> TextRequest:
    return translate_completion(msgspec.convert({"prompt": "Hi", **fields}, CompletionRequest), model, "id", Limits())[
        0
    ]


def answer_to(model: ServedModel, request: TextRequest, said: str) -> str:
    sample = sample_texts(model.tokenizer, request)[0]
    return "".join(sample.push(delta([*said[index : index + 1].encode()])).text for index in range(len(said))) + (
        sample.push(delta([EOS], FinishReason.STOP, ended_by_token=True)).text
    )


def test_model_answers_to_its_alias(chat_path: Path) -> None:
    assert served(chat_path).names == ("mine",)


def test_base_model_chats_through_a_transcript_and_stops_before_the_next_turn(base_path: Path) -> None:
    model = served(base_path, template="gpt2")
    request = chat(model, stop=["END", "\nUser:"])
    assert model.tokenizer.decode(request.generation.prompt_token_ids) == "User: Hi\nAssistant:"
    assert request.stop_strings == ("END", "\nUser:")


def test_space_between_the_prompt_and_the_answer_is_no_part_of_it(base_path: Path) -> None:
    model = served(base_path, template="gpt2")
    assert answer_to(model, chat(model), "  Hello.\nUser") == " Hello.\nUser"


def test_completion_has_neither_the_templates_stops_nor_its_space(base_path: Path) -> None:
    model = served(base_path, template="gpt2")
    request = completion(model)
    assert request.stop_strings == ()
    assert answer_to(model, request, " Hello.") == " Hello."


def test_stop_that_is_a_token_ends_at_the_token(base_path: Path) -> None:
    model = served(base_path, template="chatml")
    assert chat(model).generation.sampling.stop_token_ids == (EOS,)


def test_model_declared_base_has_no_chat_though_it_has_a_template(chat_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'mine' is a base model"):
        chat(served(chat_path, is_chat=False))


def test_model_declared_chat_without_a_template_is_refused(base_path: Path) -> None:
    with pytest.raises(ModelNotUsable, match=r"'mine' is declared a chat model, but .* holds no chat template\."):
        served(base_path, is_chat=True)


def test_defaults_of_the_profile_hold_where_the_request_says_nothing(chat_path: Path) -> None:
    model = served(chat_path, sampling=ProfileSampling(temperature=0.25, top_k=7, max_tokens=33))
    sampling = chat(model).generation.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_tokens) == (0.25, 7, 1.0, 33)
    assert completion(model).generation.sampling.max_tokens == 33
    asked = chat(model, temperature=1.5, max_tokens=2).generation.sampling
    assert (asked.temperature, asked.max_tokens) == (1.5, 2)


def test_default_limit_never_exceeds_the_window(chat_path: Path) -> None:
    model = served(chat_path, sampling=ProfileSampling(max_tokens=10**9))
    request = chat(model)
    assert request.generation.sampling.max_tokens == 4096 - request.num_prompt_tokens


def test_model_without_a_profile_is_as_before(chat_path: Path) -> None:
    model = load_served_model(fake_engine_info(chat_path))
    assert (model.names, model.default_max_tokens) == (("fake/model",), None)
    assert completion(model).generation.sampling.max_tokens == 16
