"""The TOML file of models is read strictly: what is wrong is named with its place, its value and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.model_catalog import ProfileSampling
from service.models_file import ModelTable, parse_models, read_models_file


def parse(text: str) -> list[ModelTable]:
    return [declared.table for declared in parse_models(text.encode(errors="surrogateescape"), "models.toml")]


def test_tables_are_read_in_order_with_all_their_keys() -> None:
    text = """
    [[models]]
    alias = "chat"
    model = "org/chat"
    display_name = "Chat"
    description = "For all"
    family = "llama3"
    template = "llama3"
    is_chat = true
    max_model_len = 4096
    dtype = "bfloat16"
    kv_cache_memory = "1GiB"
    memory = "4GiB"
    sampling = {temperature = 0, top_p = 0.9, top_k = 50, min_p = 0.05, repetition_penalty = 1.1, max_tokens = 200}

    [[models]]
    alias = "gpt2"
    """
    first, second = parse(text)
    sampling = ProfileSampling(temperature=0.0, top_p=0.9, top_k=50, min_p=0.05, repetition_penalty=1.1, max_tokens=200)
    assert (first.alias, first.model, first.is_chat, first.memory) == ("chat", "org/chat", True, "4GiB")
    assert first.sampling == sampling
    assert second == ModelTable(alias="gpt2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "models.toml declares no model: write a [[models]] table"),
        ("models = []", "models.toml declares no model"),
        ("models = 5", "models.toml declares no model"),
        ("models = [5]", "models.toml, model 1 is 5; write a [[models]] table"),
        ("[models.gpt2]\nmodel = 'x'", "models.toml declares no model: write a [[models]] table"),
        ("[[model]]\nalias = 'a'", "models.toml holds 'model', which is not known. Did you mean 'models'?"),
        ("[[models]]\nmodel = 'x'", "models.toml, model 1: Object missing required field `alias`."),
        ("[[models]]\nalias = 5", "models.toml, model 1, alias is 5: Expected `str`, got `int`."),
        (
            "[[models]]\nalias = 'a'\ntemplte = 'gpt2'",
            "models.toml, model 1 ('a') holds 'templte', which is not known. Did you mean 'template'?",
        ),
        ("[[models]]\nalias = 'a'\nqqq = 1", "models.toml, model 1 ('a') holds 'qqq', which is not known. Known are "),
        (
            "[[models]]\nalias = 'a'\nsampling = {temprature = 1}",
            "models.toml, model 1 ('a'), sampling holds 'temprature', which is not known. Did you mean 'temperature'?",
        ),
        (
            "[[models]]\nalias = 'a'\nsampling = {temperature = 3}",
            "models.toml, model 1 ('a'), sampling.temperature is 3: Expected `float` <= 2.0.",
        ),
        (
            "[[models]]\nalias = 'a'\nsampling = {temperature = nan}",
            "models.toml, model 1 ('a'), sampling.temperature is nan: Expected `float` >= 0.0.",
        ),
        (
            "[[models]]\nalias = 'a'\nsampling = 1",
            "models.toml, model 1 ('a'), sampling is 1: Expected `object | null`, got `int`.",
        ),
        (
            "[[models]]\nalias = 'a'\nmax_model_len = 0",
            "models.toml, model 1 ('a'), max_model_len is 0: Expected `int` >= 1.",
        ),
        ("[[models]]\nalias = 'a'\ndtype = 'int8'", "models.toml, model 1 ('a'), dtype is 'int8': Invalid enum value"),
        (
            "[[models]]\nalias = 'a'\nmemory = 'much'",
            "models.toml, model 1 ('a'), memory is 'much', but needs a size such as 512MiB or 4GiB.",
        ),
        (
            f"[[models]]\nalias = 'a'\nkv_cache_memory = '{'9' * 400}'",
            "models.toml, model 1 ('a'), kv_cache_memory is '999",
        ),
        ("[[models]\n", "models.toml is not valid TOML in UTF-8: "),
        ("\udcff", "models.toml is not valid TOML in UTF-8: "),
        ("a = " + "[" * 5000, "models.toml is nested too deeply"),
        ("[[models]]\nalias = 'a'\nalias = 'b'", "models.toml is not valid TOML in UTF-8: "),
    ],
)
def test_nonsense_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse(text)
    assert refusal.value.message.startswith(message)
    assert refusal.value.exit_code == 2


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere cannot be read: No such file or directory\."):
        read_models_file(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_models_file(tmp_path)


def test_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(SettingsError, match="larger than 1048576 bytes"):
        read_models_file(path)
