"""A model that cannot exist is refused before anything is loaded, with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ModelNotUsable
from contracts.settings import EngineSettings
from service.model_check import check_model_exists


def test_directory_with_a_config_passes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_model_exists(EngineSettings(model=str(tmp_path)))


def test_hub_name_passes_where_the_hub_may_be_asked() -> None:
    check_model_exists(EngineSettings(model="organisation/model"))


def test_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotUsable, match=r"holds no config\.json"):
        check_model_exists(EngineSettings(model=str(tmp_path)))


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelNotUsable, match="is a file, not a model directory"):
        check_model_exists(EngineSettings(model=str(tmp_path / "model.gguf")))


@pytest.mark.parametrize("model", ["./missing", "/missing/model", "a/b/c", ""])
def test_path_that_is_not_there_is_refused(model: str) -> None:
    with pytest.raises(ModelNotUsable, match="There is no model directory"):
        check_model_exists(EngineSettings(model=model))


def test_hub_name_that_is_not_cached_is_refused_offline() -> None:
    with pytest.raises(ModelNotUsable, match="the hub may not be asked"):
        check_model_exists(EngineSettings(model="organisation/quire-test-of-a-missing-model", offline=True))
