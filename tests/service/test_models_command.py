"""`quire models`: a row for each declared model, as a table and as JSON, without loading or fetching anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.ready_models import READY_MODELS
from tests.fakes import write_byte_model
from tests.shape_rules import ROOT


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def models(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", "--device", "cpu", *arguments])


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = models("--json", *arguments)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout, type=list[dict[str, Any]])


def test_embedded_model_is_always_there() -> None:
    (row,) = rows()
    assert (row["alias"], row["location"], row["template"], row["is_chat"]) == (
        "quire-pico",
        "embedded",
        "its own",
        True,
    )
    assert row["is_default"]
    assert row["memory"].startswith("needs ")


def test_every_kind_of_model_is_told_apart(directory: Path) -> None:
    base = write_byte_model(directory / "base")
    (base / "tokenizer_config.json").unlink()
    (base / "config.json").write_text("{}")
    found = {row["alias"]: row for row in rows("./base", "--models", "gpt2,other=org/other", "--default-model", "gpt2")}
    assert list(found) == ["base", "gpt2", "other", "quire-pico"]
    assert [alias for alias, row in found.items() if row["is_default"]] == ["gpt2"]
    assert found["base"]["location"] == "directory"
    assert "holds no *.safetensors" in found["base"]["problem"]
    gpt2 = found["gpt2"]
    assert (gpt2["location"], gpt2["template"], gpt2["max_model_len"]) == ("hub", "gpt2", 1024)
    other = found["other"]
    assert (other["is_chat"], other["max_model_len"], other["memory_bytes"]) == (None, None, None)


def test_chat_model_without_a_template_is_told(directory: Path) -> None:
    base = write_byte_model(directory / "base")
    (base / "tokenizer_config.json").unlink()
    (base / "config.json").write_text("{}")
    (directory / "models.toml").write_text('[[models]]\nalias = "b"\nmodel = "base"\nis_chat = true')
    row = next(row for row in rows("--models-file", "models.toml") if row["alias"] == "b")
    assert "is declared a chat model, but" in row["problem"]


def test_table_shows_the_same(directory: Path) -> None:
    (directory / "broken").mkdir()
    (directory / "broken" / "config.json").write_text("{")
    result = models("./broken", "--models", "gpt2", "--max-loaded-memory", "3GiB")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Name", "Model", "Where", "Chat", "Context", "Memory"]
    assert lines[1].split()[:2] == ["broken", "(default)"]
    assert lines[2].split()[:5] == ["gpt2", "openai-community/gpt2", "hub", "gpt2", "1,024"]
    assert lines[-1].startswith("Loaded models may take 3.0 GiB together; the machine has ")
    assert "broken: " in result.stdout


def test_ready_entries_are_listed() -> None:
    assert [row["alias"] for row in rows("--ready")] == ["quire-pico", *READY_MODELS]


def test_wrong_declaration_ends_with_one_line_and_code_2() -> None:
    result = models("--models", "gtp2")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --models 'gtp2' is no ready entry. Did you mean 'gpt2'")


def test_neither_torch_nor_the_server_is_imported() -> None:
    code = (
        "import sys; from service.cli import main; main(['models'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'litestar', 'granian'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
