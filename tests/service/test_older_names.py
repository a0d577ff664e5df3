"""Variables of older services mean what they meant, or are refused with what to use instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import EngineSettings, Settings
from service.model_catalog import read_catalog
from service.older_names import MISLEADING_MODELS, SUCCESSORS
from service.setting_fields import setting_fields
from service.settings_loader import load_settings

DOCUMENTED = """
LLM_MODEL_NAME=gpt2
LLM_DEVICE=cpu
LLM_MODEL_CACHE_DIR=/path/to/models
LLM_LOG_LEVEL=DEBUG
LLM_MAX_CONVERSATION_LENGTH=20
LLM_HOST=127.0.0.2
LLM_PORT=8001
LLM_TORCH_THREADS=3
LLM_KV_CACHE_DTYPE=bfloat16
"""


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def check(settings: Settings) -> None:
    engine, server = settings.engine, settings.server
    assert (engine.model, engine.device, engine.model_cache_dir) == ("gpt2", "cpu", "/path/to/models")
    assert engine.kv_dtype == "bfloat16"
    assert (engine.num_threads, server.log_level, server.max_conversation_length) == (3, "debug", 20)
    assert (server.host, server.port) == ("127.0.0.2", 8001)


def test_documented_file_works(env_file: Path) -> None:
    env_file.write_text(DOCUMENTED)
    check(load_settings({}, {}, env_file))


def test_documented_variables_work(env_file: Path) -> None:
    pairs = [line.partition("=") for line in DOCUMENTED.split()]
    check(load_settings({}, {name: value for name, _, value in pairs}, env_file))


@pytest.mark.parametrize(
    ("flags", "environ", "file", "model"),
    [
        ({"model": "a"}, {"LLM_MODEL_NAME": "b"}, "", "a"),
        ({}, {"LLM_MODEL_NAME": "b"}, "LLM_MODEL=c", "b"),
        ({}, {"LLM_MODEL": "b", "LLM_MODEL_NAME": "b"}, "", "b"),
        ({}, {"LLM_MODEL": "b", "LLM_MODEL_NAME": ""}, "", "b"),
    ],
)
def test_older_name_has_the_rank_of_its_source(
    env_file: Path, flags: dict[str, object], environ: dict[str, str], file: str, model: str
) -> None:
    env_file.write_text(file)
    assert load_settings(flags, environ, env_file).engine.model == model


def test_both_names_with_different_values_are_refused(env_file: Path) -> None:
    with pytest.raises(SettingsError, match="LLM_MODEL_NAME is an older name of LLM_MODEL"):
        load_settings({}, {"LLM_MODEL": "a", "LLM_MODEL_NAME": "b"}, env_file)


@pytest.mark.parametrize("name", sorted(SUCCESSORS))
def test_name_without_a_meaning_is_refused_with_its_successor(env_file: Path, name: str) -> None:
    env_file.write_text(f"{name}=1")
    with pytest.raises(SettingsError, match=f"{name}.*(Use|Leave)"):
        load_settings({}, {}, env_file)


def test_variables_of_other_programs_in_the_environment_are_not_ours(env_file: Path) -> None:
    assert load_settings({}, {"LOG_LEVEL": "nonsense", "QUEUE_MODE": "x"}, env_file) == Settings()
    with pytest.raises(SettingsError, match="LLM_LOG_LEVEL=debug"):
        load_settings({}, {"LLM_DEBUG": "true"}, env_file)


def test_successors_are_settings() -> None:
    words = {word.rstrip(".,;=").partition("=")[0] for advice in SUCCESSORS.values() for word in advice.split()}
    named = {word for word in words if word.startswith("LLM_")}
    assert named <= {field.variable for field in setting_fields()}


@pytest.mark.parametrize("name", sorted(MISLEADING_MODELS))
def test_model_name_that_was_misleading_is_refused_with_what_it_meant(name: str) -> None:
    with pytest.raises(SettingsError, match="It used to mean"):
        read_catalog(Settings(engine=EngineSettings(model=name)))
