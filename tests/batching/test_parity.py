"""The engine's greedy output equals `model.generate` of plain transformers, token for token, for every family."""

from __future__ import annotations

import pytest

from batching.offline import OfflineEngine
from contracts.generation import FinishReason
from tests.batching.real_engine import Outcome, engine_settings, greedy_request
from tests.batching.tiny_models import FAMILIES, MIN_DISTINCT_FRACTION, NUM_NEW_TOKENS, PROMPT_LENS, TinyModels


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


@pytest.mark.parametrize("family", FAMILIES)
def test_references_have_mostly_distinct_tokens(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    assert [len(prompt) for prompt in reference.prompts] == list(PROMPT_LENS)
    fewest = min(len(set(output)) for output in reference.outputs)
    assert fewest >= MIN_DISTINCT_FRACTION * NUM_NEW_TOKENS
