"""RoPE that looks at the longest position of a packed batch says the same for a request alone and beside a long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batching import model_loader
from batching.model_loader import load_model, no_progress
from contracts.errors import ModelNotUsable
from tests.batching.real_engine import engine_settings, fresh_scheduler, greedy_request, run_all, start_engine
from tests.batching.tiny_models import make_config, make_model, make_prompt, save

SWITCH_LEN = 64
"""Tokens beyond which these models turn with other frequencies."""
SHORT = make_prompt(9, seed=1)
LONG = make_prompt(SWITCH_LEN - 8, seed=2)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama_dynamic": {"max_position_embeddings": SWITCH_LEN},
    "phi3_longrope": {
        "max_position_embeddings": 4 * SWITCH_LEN,
        "original_max_position_embeddings": SWITCH_LEN,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": SWITCH_LEN,
        },
    },
}


def write(family: str, directory: Path) -> Path:
    """A checkpoint whose frequencies change beyond SWITCH_LEN, with weights that make every position count."""
    return save(make_model(make_config(family, **FAMILIES[family]), seed=0), directory)


@pytest.fixture(params=FAMILIES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(request.param, tmp_path)


@pytest.mark.parametrize("budget", [16, 512])
def test_short_request_says_the_same_beside_one_at_the_switch(path: Path, budget: int) -> None:
    """The long one is prefilled in the same step as the short one, and decodes up to the last token of the window."""
    core = start_engine(path, max_model_len=None, block_size=4)
    assert core.info.max_model_len == SWITCH_LEN
    limits = {"max_num_batched_tokens": budget, "enable_prefix_caching": False}
    short = greedy_request("short", SHORT, max_tokens=SWITCH_LEN - len(SHORT))
    long = greedy_request("long", LONG, max_tokens=SWITCH_LEN - len(LONG))
    alone = run_all(fresh_scheduler(core, **limits), core.runner, [short])
    together = run_all(fresh_scheduler(core, **limits), core.runner, [long, short])
    assert len(together.text("long")) == SWITCH_LEN - len(LONG)
    assert together.text("short") == alone.text("short")


def test_window_beyond_the_switch_is_refused(path: Path) -> None:
    with pytest.raises(ModelNotUsable, match=f"--max-model-len {SWITCH_LEN + 1} is above the {SWITCH_LEN} tokens"):
        load_model(engine_settings(path, max_model_len=SWITCH_LEN + 1), no_progress)


def test_a_mate_beyond_the_switch_would_change_the_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the window ends there: served beyond it all the same, the short request says something else."""
    monkeypatch.setattr(model_loader, "usable_model_len", lambda config, wanted: 4 * SWITCH_LEN)
    core = start_engine(write("phi3_longrope", tmp_path), block_size=4)
    scheduler_limits = {"enable_prefix_caching": False}
    short = greedy_request("short", SHORT, max_tokens=20)
    longer = greedy_request("longer", make_prompt(SWITCH_LEN, seed=2), max_tokens=20)
    alone = run_all(fresh_scheduler(core, **scheduler_limits), core.runner, [short])
    together = run_all(fresh_scheduler(core, **scheduler_limits), core.runner, [longer, short])
    assert together.text("short") != alone.text("short")
