"""The engine's greedy output equals `model.generate` of plain transformers, token for token, for every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from batching.offline import OfflineEngine
from contracts.generation import FinishReason
from tests.batching.real_engine import Outcome, engine_settings, fresh_scheduler, greedy_request, run_all, start_engine
from tests.batching.tiny_models import (
    FAMILIES,
    MIN_DISTINCT_FRACTION,
    MORE_FAMILIES,
    NUM_NEW_TOKENS,
    PROMPT_LENS,
    TinyModels,
    greedy,
    make_config,
    make_model,
    make_prompt,
    make_reference,
    save,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_batch_of_prompts_continues_as_in_transformers(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    max_model_len = 128 if family == "phi3_longrope" else 160
    outcome = Outcome()
    with OfflineEngine(engine_settings(reference.path, max_model_len=max_model_len)) as engine:
        outcome.add(list(engine.generate(requests)))
    assert [outcome.text(request.request_id) for request in requests] == reference.outputs
    assert {final.finish_reason for final in outcome.finals.values()} == {FinishReason.LENGTH}


def outputs_of(path: Path, prompts: list[list[int]], max_tokens: int = NUM_NEW_TOKENS) -> list[list[int]]:
    core = start_engine(path, block_size=4)
    scheduler = fresh_scheduler(core, max_num_batched_tokens=23)
    requests = [greedy_request(str(index), prompt, max_tokens=max_tokens) for index, prompt in enumerate(prompts)]
    outcome = run_all(scheduler, core.runner, requests)
    return [outcome.text(request.request_id) for request in requests]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "opt", "cohere2"])
def test_tied_embeddings_continue_as_in_transformers(tmp_path: Path, family: str) -> None:
    model = make_model(make_config(family, tie_word_embeddings=True), seed=0)
    prompts = [make_prompt(length, seed=7) for length in (1, 17, 40)]
    expected = [greedy(model, prompt, 6)[0] for prompt in prompts]
    assert outputs_of(save(model, tmp_path), prompts, max_tokens=6) == expected


@pytest.mark.slow
@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_further_families_continue_as_in_transformers(tmp_path: Path, family: str) -> None:
    reference = make_reference(family, tmp_path)
    assert outputs_of(reference.path, reference.prompts) == reference.outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_references_have_mostly_distinct_tokens(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    assert [len(prompt) for prompt in reference.prompts] == list(PROMPT_LENS)
    fewest = min(len(set(output)) for output in reference.outputs)
    assert fewest >= MIN_DISTINCT_FRACTION * NUM_NEW_TOKENS
