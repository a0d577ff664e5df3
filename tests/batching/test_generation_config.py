"""generation_config.json decides where sequences end and how to sample by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from batching.generation_config import GenerationConfig, eos_token_ids, read_generation_config
from contracts.errors import ModelNotUsable
from contracts.sampling import SamplingDefaults


def test_given_values_replace_openai_defaults(tmp_path: Path) -> None:
    """Only what the file names changes; null means absent."""
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_p": null, "top_k": 20, "x": 1}')
    assert read_generation_config(tmp_path).sampling_defaults == SamplingDefaults(temperature=0.6, top_k=20)


def test_model_without_a_file_has_openai_defaults(tmp_path: Path) -> None:
    """Nothing is required of a checkpoint."""
    assert read_generation_config(tmp_path) == GenerationConfig()


@pytest.mark.parametrize("text", ["{", '{"temperature": "hot"}', '{"eos_token_id": "x"}'])
def test_unreadable_file_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    """A damaged file stops the start instead of being passed over."""
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelNotUsable, match=r"generation_config\.json"):
        read_generation_config(tmp_path)


def test_end_ids_of_both_files_count() -> None:
    """Chat models list their end-of-turn id in one file only."""
    assert eos_token_ids(GenerationConfig(eos_token_id=[7, 3]), 2) == [2, 3, 7]
    assert eos_token_ids(GenerationConfig(), None) == []
