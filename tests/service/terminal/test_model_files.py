"""The doctor names the file of a checkpoint that is cut off, corrupt, missing, or does not fit the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from service.terminal.examination import examine
from service.terminal.model_files import check_files, check_template, check_tokenizer
from tests.service.terminal.safetensors_files import SHAPES, write_checkpoint, write_tensors


def profile(path: Path, **values: object) -> ModelProfile:
    return ModelProfile(alias="tiny", model=str(path), **values)  # type: ignore[arg-type]


def files_of(path: Path) -> Finding:
    return examine("files", lambda: check_files(profile(path)))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def test_whole_checkpoint_is_well(checkpoint: Path) -> None:
    finding = files_of(checkpoint)
    assert (finding.state, finding.evidence["num_tensors"]) == ("ok", 3)
    assert check_tokenizer(profile(checkpoint)).state == "ok"
    assert check_template(profile(checkpoint)).state == "ok"


def test_truncated_file_is_named(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    finding = files_of(checkpoint)
    assert (finding.state, finding.remedy) == ("failed", "Download the model again.")
    assert str(path) in finding.summary
    assert "is cut off" in finding.summary


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 64, (12).to_bytes(8, "little") + b"not json at "])
def test_file_without_a_header_is_named(checkpoint: Path, content: bytes) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(content)
    assert f"{path} is no safetensors file" in files_of(checkpoint).summary


def test_bytes_behind_the_end_are_corrupt(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    assert "4 bytes follow its last tensor" in files_of(checkpoint).summary


def test_offsets_that_do_not_fit_the_shape_are_corrupt(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"[16, 8]", b"[16, 9]", 1))
    assert "is corrupt: the bytes of model.layers.0" in files_of(checkpoint).summary


def test_missing_shard_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    write_tensors(checkpoint / "a.safetensors", SHAPES)
    index = {"weight_map": dict.fromkeys(SHAPES, "a.safetensors") | {"lm_head.weight": "b.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"{checkpoint / 'b.safetensors'} is missing" in files_of(checkpoint).summary


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vocab_size": 300}, "there are 300 token ids, but model.embed_tokens.weight has 258 rows"),
        ({"hidden_size": 16}, "a token has 16 numbers"),
        ({"num_hidden_layers": 3}, "says 3 layers, the weights hold 2"),
    ],
)
def test_config_of_another_model_is_found_out(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    assert words in files_of(write_checkpoint(tmp_path / "tiny", **config)).summary


def test_tokenizer_of_another_model_is_found_out(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny", vocab_size=40)
    finding = examine("tokenizer", lambda: check_tokenizer(profile(path)))
    assert (finding.state, "do not belong together" in finding.summary) == ("failed", True)


def test_broken_tokenizer_is_named(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{")
    finding = examine("tokenizer", lambda: check_tokenizer(profile(checkpoint)))
    assert (finding.state, "tokenizer.json" in finding.summary) == ("failed", True)


def test_missing_template_is_a_warning_with_the_remedy(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").write_text("{}")
    finding = check_template(profile(checkpoint))
    assert (finding.state, "no chat template" in finding.summary) == ("warning", True)
    assert "template" in (finding.remedy or "")
    assert check_template(profile(checkpoint, template="chatml")).state != "warning"


def test_template_that_refuses_to_render_fails(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    finding = examine("template", lambda: check_template(profile(checkpoint)))
    assert (finding.state, "never" in finding.summary) == ("failed", True)


def test_template_without_the_message_is_a_warning(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("nothing of it")
    assert check_template(profile(checkpoint)).state == "warning"


def test_declared_base_model_needs_no_template(checkpoint: Path) -> None:
    assert check_template(profile(checkpoint, is_chat=False)).state == "skipped"


def test_model_that_is_not_here_is_skipped() -> None:
    absent = ModelProfile(alias="a", model="org/quire-test-of-a-missing-model")
    assert [check(absent).state for check in (check_files, check_tokenizer, check_template)] == ["skipped"] * 3
