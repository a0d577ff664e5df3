"""The device runner with Triton's operations, in Triton's interpreter: the same tokens as with those in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batching.device_ops import DeviceOps, TorchOps
from batching.step import UNKNOWN_TOKEN
from contracts.sampling import SamplingParams
from tests.batching.device_rig import Job, LagOneDriver, make_runner, plan_of, prompt_row, start_device_engine
from tests.batching.kernels.triton_child import WITHOUT_TRITON, Run, has_triton
from tests.batching.real_engine import fresh_scheduler, request_of, run_all
from tests.batching.tiny_models import make_config, make_model, make_prompt, save

if not has_triton():
    pytest.skip(WITHOUT_TRITON, allow_module_level=True)

SIZES: dict[str, Any] = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0, "num_logprobs": 2},
    {"temperature": 0.8, "top_k": 9, "top_p": 0.9},
    {"temperature": 1.0, "presence_penalty": 0.5, "logit_bias": ((7, 2.0),)},
)


def triton_ops() -> DeviceOps:
    from batching.device_ops_triton import TritonOps

    return TritonOps()


def tokens_of_an_engine(path: Path, *, is_triton: bool) -> tuple[str, dict[tuple[str, int], list[int]]]:
    """The forward pass and what it says to three requests, in chunks and decodes."""
    ops = triton_ops() if is_triton else TorchOps()
    core = start_device_engine(path, ops, block_size=4, max_model_len=24, max_num_seqs=4)
    requests = [
        request_of(str(index), make_prompt(3 + 4 * index, index), seed=index, max_tokens=3, **options)
        for index, options in enumerate(OPTIONS)
    ]
    scheduler = fresh_scheduler(core, max_num_batched_tokens=9)
    return core.forward_name, dict(run_all(scheduler, core.runner, requests).tokens)


def tokens_of_two_steps(path: Path, *, is_triton: bool) -> list[list[Any]]:
    """A prompt beside a chunk, then a decode one step ahead beside the rest of the prompt."""
    runner = make_runner(path, ops=triton_ops() if is_triton else TorchOps(), max_model_len=8)
    first = [prompt_row(0, [1, 2, 3]), prompt_row(1, [4, 5], is_sampling=False)]
    ahead = prompt_row(0, [UNKNOWN_TOKEN], start=3, num_output_tokens=1, sampling=first[0].sampling)
    last = prompt_row(1, [6], start=2, sampling=first[1].sampling)
    runner.launch(plan_of(first))
    runner.launch(plan_of([ahead, last]))
    return [list(runner.collect().sampled) for _ in range(2)]


def tokens_one_step_ahead(path: Path, *, is_triton: bool) -> dict[int, list[int]]:
    ops = triton_ops() if is_triton else TorchOps()
    core = start_device_engine(path, ops, block_size=4, max_model_len=24, max_num_seqs=4)
    jobs = [
        Job(seq_id=index, prompt=make_prompt(2 + index, index), max_tokens=4, sampling=SamplingParams(**options))
        for index, options in enumerate(OPTIONS)
    ]
    runner: Any = core.runner
    return LagOneDriver(runner, jobs, chunk_len=3, num_blocks=20).run()


@pytest.mark.slow
def test_two_steps_with_kernels_say_what_torch_says(tmp_path: Path, interpret: Run) -> None:
    path = save(make_model(make_config("llama", **SIZES | {"vocab_size": 101}), seed=0), tmp_path)
    found = interpret(tokens_of_two_steps, path, is_triton=True)
    assert found == tokens_of_two_steps(path, is_triton=False)
    assert [token is None for token in found[0]] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_an_engine_with_kernels_says_what_one_in_torch_says(tmp_path: Path, family: str, interpret: Run) -> None:
    sizes = {"n_layer": 1, "n_embd": 32} if family == "gpt2" else SIZES
    path = save(make_model(make_config(family, **sizes), seed=0), tmp_path)
    forward_name, tokens = interpret(tokens_of_an_engine, path, is_triton=True)
    assert tokens == tokens_of_an_engine(path, is_triton=False)[1]
    assert forward_name == ("DeviceLlama" if family == "qwen3" else "GenericDeviceForward")


@pytest.mark.slow
def test_one_step_ahead_with_kernels_says_what_torch_says(tmp_path: Path, interpret: Run) -> None:
    path = save(make_model(make_config("llama", **SIZES), seed=0), tmp_path)
    found = interpret(tokens_one_step_ahead, path, is_triton=True)
    assert found == tokens_one_step_ahead(path, is_triton=False)
