"""On a CUDA device: the device runner with compiled kernels and graphs says what transformers says on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batching.device_runner import DeviceRunner
from batching.engine import EngineCore, build_engine
from batching.model_loader import no_progress
from tests.batching.device_rig import GREEDY, Job, LagOneDriver
from tests.batching.real_engine import engine_settings, fresh_scheduler, greedy_request, run_all
from tests.batching.tiny_models import Reference, TinyModels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GRAPHED = ["llama", "qwen2", "qwen3", "mistral_window", "gemma2", "gpt2", "phi3", "olmo2", "gpt_oss"]


def start(reference: Reference, **overrides: Any) -> EngineCore:
    settings = engine_settings(reference.path, **({"device": "cuda", "block_size": 16} | overrides))
    core = build_engine(settings, no_progress)
    assert isinstance(core.runner, DeviceRunner)
    return core


def num_graphs(core: EngineCore) -> int:
    runner: Any = core.runner
    return len(runner.graphs._replays)


def outputs(core: EngineCore, reference: Reference, **limits: Any) -> list[list[int]]:
    scheduler = fresh_scheduler(core, **limits)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    outcome = run_all(scheduler, core.runner, requests)
    return [outcome.text(request.request_id) for request in requests]


@pytest.mark.parametrize("family", GRAPHED)
def test_captured_steps_say_what_transformers_says(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start(reference, max_model_len=128)
    assert outputs(core, reference, enable_prefix_caching=False) == reference.outputs
    assert outputs(core, reference, enable_prefix_caching=False, max_num_batched_tokens=23) == reference.outputs
    assert num_graphs(core) > 2
    runner: Any = core.runner
    assert not runner.graphs._is_refused


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_step_ahead_with_graphs_says_what_transformers_says(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start(reference, max_model_len=128, block_size=4)
    runner: Any = core.runner
    jobs = [
        Job(seq_id=index, prompt=prompt, max_tokens=24, sampling=GREEDY, arrives_at=5 * index)
        for index, prompt in enumerate(reference.prompts)
    ]
    assert list(LagOneDriver(runner, jobs, chunk_len=9, num_blocks=120).run().values()) == reference.outputs
    assert num_graphs(core) > 2
