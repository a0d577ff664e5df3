"""The command's help, suggestions, errors and exit codes, before any model is loaded."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contracts.version import VERSION
from service.cli import main
from service.cli_options import resolve_settings
from service.setting_fields import SettingField, setting_fields


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_version_is_shown(runner: CliRunner) -> None:
    assert runner.invoke(main, ["--version"]).output == f"quire, version {VERSION}\n"


def test_help_lists_every_command(runner: CliRunner) -> None:
    output = runner.invoke(main, ["--help"]).output
    assert [
        name
        for name in ("serve", "generate", "bench", "smoke", "ps", "monitor", "doctor", "info", "key")
        if f"  {name} " not in output
    ] == []


@pytest.mark.parametrize(
    "field",
    [field for field in setting_fields() if field.name != "model" and not field.is_secret],
    ids=lambda field: field.name,
)
def test_serve_help_shows_flag_and_variable_of_every_setting(runner: CliRunner, field: SettingField) -> None:
    output = runner.invoke(main, ["serve", "--help"]).output
    assert re.search(f"{field.flag}[ ,]", output)
    assert f"[{field.variable}" in output


def test_older_flag_is_shown_beside_its_successor(runner: CliRunner) -> None:
    output = runner.invoke(main, ["serve", "--help"]).output
    assert "--kv-dtype, --kv-cache-dtype [auto|float32|bfloat16|fp8]" in output
    refused = runner.invoke(main, ["serve", "--kv-cache-dtype", "int4"])
    assert refused.stderr == "Error: --kv-dtype is 'int4', but needs one of auto, float32, bfloat16, fp8.\n"


def test_choice_that_may_be_left_out_is_shown_as_its_values(runner: CliRunner) -> None:
    assert "--otlp-protocol [http/protobuf|grpc]" in runner.invoke(main, ["serve", "--help"]).output
    refused = runner.invoke(main, ["serve", "--otlp-protocol", "xx"])
    assert refused.stderr == "Error: --otlp-protocol is 'xx', but needs one of http/protobuf, grpc.\n"


def test_secret_has_a_variable_and_no_flag(runner: CliRunner) -> None:
    output = runner.invoke(main, ["serve", "--help"]).output
    assert "LLM_API_KEYS:" in output
    assert "--api-keys " not in output


@pytest.mark.parametrize("arguments", [["--api-keys", "sk-canary-0123456789"], ["--api-keys=sk-canary-0123456789"]])
def test_secret_on_the_command_line_is_refused_and_not_repeated(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    assert "canary" not in result.output


@pytest.mark.usefixtures("runner")
def test_secret_leaves_the_environment_once_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEYS", "a=sk-canary-0123456789")
    assert resolve_settings({}).server.api_keys == "a=sk-canary-0123456789"
    assert "LLM_API_KEYS" not in os.environ


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (["srve"], "Did you mean 'serve'?"),
        (["serve", "--max-num-seq", "1"], "Did you mean '--max-num-seqs'?"),
        (["generate", "--temprature", "1", "x"], "Did you mean '--temperature'?"),
    ],
)
def test_mistyped_name_is_answered_with_the_nearest(runner: CliRunner, args: list[str], suggestion: str) -> None:
    result = runner.invoke(main, args)
    assert result.exit_code == 2
    assert suggestion in result.stderr


def test_impossible_value_ends_with_one_line_and_code_2(runner: CliRunner) -> None:
    result = runner.invoke(main, ["serve", "--max-num-seqs", "0"])
    assert result.exit_code == 2
    assert result.stderr == "Error: --max-num-seqs is '0', but needs a whole number of at least 1.\n"


def test_missing_model_ends_with_one_line_and_code_3(runner: CliRunner) -> None:
    result = runner.invoke(main, ["serve", "./nowhere"])
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: There is no model directory './nowhere'.")
    assert result.stderr.count("\n") == 1


def test_verbose_shows_the_traceback_above_the_same_line(runner: CliRunner) -> None:
    result = runner.invoke(main, ["-v", "serve", "--max-num-seqs", "0"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: --max-num-seqs is '0'")


def test_port_in_use_ends_with_the_next_free_one_and_code_5(runner: CliRunner, model: Path, taken_port: int) -> None:
    result: Result = runner.invoke(main, ["serve", str(model), "--port", str(taken_port)])
    assert result.exit_code == 5
    assert f", process {os.getpid()}. Port " in result.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["Tiny"], "num_hidden_layers": 3, "dtype": "bfloat16"}')
    (directory / "model.safetensors").write_bytes(bytes(2048))
    return directory


def test_info_shows_the_facts_of_a_model_without_loading_it(runner: CliRunner, model: Path) -> None:
    output = runner.invoke(main, ["info", str(model)]).stdout
    rows = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in map(str.rstrip, output.splitlines())}
    assert rows["Quire"] == VERSION
    assert (rows["Architecture"], rows["Layers"], rows["Weights"]) == ("Tiny", "3", "2.0 KiB")


def test_help_imports_neither_torch_nor_the_server() -> None:
    code = (
        "import sys; from service.cli import main; main(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'litestar', 'granian', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
