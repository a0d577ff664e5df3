"""Where a setting's value comes from, which source wins, and how wrong names and values are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pprint import pformat

import msgspec
import pytest
from rich.pretty import pretty_repr

from contracts.errors import SettingsError
from contracts.settings import CatalogSettings, EngineSettings, ServerSettings, Settings
from service.setting_fields import setting_fields
from service.settings_loader import _convert, load_settings


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_nothing_given_leaves_every_default(env_file: Path) -> None:
    assert load_settings({}, {}, env_file) == Settings()


def test_every_field_of_the_structs_is_a_setting() -> None:
    names = [field.name for field in setting_fields()]
    groups = (EngineSettings, CatalogSettings, ServerSettings)
    assert names == [name for group in groups for name in group.__struct_fields__]


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in setting_fields() if not field.help] == []


@pytest.mark.parametrize(
    ("flags", "environ", "file", "expected"),
    [
        ({"port": "1"}, {"LLM_PORT": "2"}, "LLM_PORT=3", 1),
        ({"port": None}, {"LLM_PORT": "2"}, "LLM_PORT=3", 2),
        ({}, {}, "LLM_PORT=3", 3),
        ({}, {"LLM_PORT": ""}, "LLM_PORT=3", 3),
        ({}, {"LLM_PORT": ""}, "LLM_PORT=", 8000),
    ],
)
def test_flag_wins_over_variable_over_file_over_default(
    env_file: Path, flags: dict[str, object], environ: dict[str, str], file: str, expected: int
) -> None:
    env_file.write_text(file)
    assert load_settings(flags, environ, env_file).server.port == expected


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("LLM_HOST=::1", "::1"),
        ("  export LLM_HOST = localhost  ", "localhost"),
        ("LLM_HOST='a # b'", "a # b"),
        ('LLM_HOST="quoted" # comment', "quoted"),
        ("LLM_HOST=plain # comment", "plain"),
    ],
)
def test_env_file_lines_are_read_as_shells_write_them(env_file: Path, line: str, value: str) -> None:
    env_file.write_text(f"# a comment\n\n{line}\n")
    assert load_settings({}, {}, env_file).server.host == value


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "yes", "on"])
def test_switch_is_turned_on_by_words_people_use(env_file: Path, word: str) -> None:
    assert load_settings({}, {"LLM_OFFLINE": word}, env_file).engine.offline is True


def test_switch_is_turned_off_by_its_opposite_flag(env_file: Path) -> None:
    assert load_settings({"offline": False}, {"LLM_OFFLINE": "1"}, env_file).engine.offline is False


@pytest.mark.parametrize(("environ", "is_offline"), [({}, True), ({"LLM_OFFLINE": "0"}, False)])
def test_hub_offline_variable_is_respected_unless_overruled(
    env_file: Path, environ: dict[str, str], is_offline: bool
) -> None:
    assert load_settings({}, {"HF_HUB_OFFLINE": "1", **environ}, env_file).engine.offline is is_offline


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_num_seqs", "0", "--max-num-seqs is '0', but needs a whole number of at least 1."),
        ("max_num_seqs", "many", "--max-num-seqs is 'many', but needs a whole number of at least 1."),
        ("port", "70000", "--port is '70000', but needs a whole number from 0 to 65535."),
        ("dtype", "int4", "--dtype is 'int4', but needs one of auto, float32, bfloat16."),
        ("request_timeout_s", "0", "--request-timeout-s is '0', but needs a number above 0."),
        (
            "gpu_memory_utilization",
            "90",
            "--gpu-memory-utilization is '90', but needs a number above 0 and at most 1.",
        ),
        ("request_timeout_s", "nan", "--request-timeout-s is 'nan', but needs a number above 0."),
        ("priority_ageing_s", "inf", "--priority-ageing-s is 'inf', but needs a number above 0."),
        ("kv_cache_memory", "4Gigs", "--kv-cache-memory is '4Gigs', but needs a size such as 512MiB or 4GiB."),
    ],
)
def test_impossible_value_is_refused_with_what_is_allowed(env_file: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings({name: value}, {}, env_file)
    assert refusal.value.message == message


def test_refusal_names_the_variable_and_the_file(env_file: Path) -> None:
    env_file.write_text("LLM_PORT=x")
    with pytest.raises(SettingsError, match=r"^LLM_PORT in \.env is 'x'"):
        load_settings({}, {}, env_file)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("LLM_MAX_NUM_SEQ=3", "Unknown setting LLM_MAX_NUM_SEQ in .env, line 1. Did you mean LLM_MAX_NUM_SEQS?"),
        ("MAX_NUM_SEQS=3", "Unknown setting MAX_NUM_SEQS in .env, line 1. Did you mean LLM_MAX_NUM_SEQS?"),
        ("\nDATABASE=3", "Unknown setting DATABASE in .env, line 2. `quire serve --help` lists the settings."),
        ("LLM_PORT", ".env, line 1: LLM_PORT is not of the form NAME=value."),
        ("sk-canary-0123", ".env, line 1: is not of the form NAME=value."),
        ("LLM_API_KEYS: sk-canary", ".env, line 1: LLM_API_KEYS is not of the form NAME=value."),
        ("skcanary==", "Unknown setting in .env, line 1. `quire serve --help` lists the settings."),
    ],
)
def test_unknown_name_in_the_file_is_refused_with_a_suggestion(env_file: Path, file: str, message: str) -> None:
    env_file.write_text(file)
    with pytest.raises(SettingsError) as refusal:
        load_settings({}, {}, env_file)
    assert refusal.value.message == message


def test_unknown_variable_of_ours_is_refused_and_foreign_ones_are_not(env_file: Path) -> None:
    load_settings({}, {"DATABASE": "x"}, env_file)
    with pytest.raises(SettingsError, match=r"LLM_PROT in the environment\. Did you mean LLM_PORT"):
        load_settings({}, {"LLM_PROT": "1"}, env_file)


def test_secret_comes_from_a_variable_and_never_from_a_flag(env_file: Path) -> None:
    settings = load_settings({"api_keys": "flag"}, {"LLM_API_KEYS": "variable"}, env_file)
    assert settings.server.api_keys == "variable"
    assert load_settings({"api_keys": "flag"}, {}, env_file).server.api_keys is None


@pytest.mark.parametrize("show", [repr, str, lambda settings: f"{settings.server!r}", pretty_repr, pformat])
def test_shown_settings_hide_secrets_and_nothing_else(show: Callable[[Settings], str]) -> None:
    shown = show(Settings(server=ServerSettings(api_keys="a=sk-canary", host="a.host")))
    assert "canary" not in shown
    assert "a.host" in shown


def test_secret_is_not_quoted_when_it_is_refused() -> None:
    field = msgspec.structs.replace(next(one for one in setting_fields() if one.is_secret), annotation=int)
    with pytest.raises(SettingsError, match=r"^LLM_API_KEYS is set, but needs text\.$"):
        _convert(field, "LLM_API_KEYS", "sk-canary")


def test_file_that_is_no_text_is_refused(env_file: Path) -> None:
    env_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="Cannot read"):
        load_settings({}, {}, env_file)
