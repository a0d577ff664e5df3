"""In bfloat16 the engine's probabilities are near those of transformers; equal tokens are not promised there."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from contracts.generation import FinishReason
from tests.batching.real_engine import Outcome, greedy_request, run_all, start_engine
from tests.batching.tiny_models import FAMILIES, Reference, TinyModels

NUM_TOP = 20
TOLERANCE = 0.15
"""Natural-log units. The logits are about 4 wide and bfloat16 rounds each layer's output by up to 1/256 of it."""


def plain_logprobs(reference: Reference, prompt: list[int], token_ids: list[int]) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(reference.path, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([prompt]), use_cache=False).logits[0, -1]
    logprobs: list[float] = torch.log_softmax(logits.float(), dim=-1)[token_ids].tolist()
    return logprobs


def top_logprobs(outcome: Outcome, request_id: str) -> tuple[list[int], list[float]]:
    (entry,) = outcome.finals[request_id, 0].logprobs or []
    return [token for token, _ in entry.top], [logprob for _, logprob in entry.top]


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_log_probabilities_are_near_those_of_transformers(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_engine(reference.path, dtype="bfloat16", max_model_len=128)
    requests = [
        greedy_request(str(index), prompt, max_tokens=1, num_logprobs=NUM_TOP)
        for index, prompt in enumerate(reference.prompts)
    ]
    outcome = run_all(core.scheduler, core.runner, requests)
    token_ids, logprobs = top_logprobs(outcome, "6")
    assert core.info.dtype == "bfloat16"
    assert len(token_ids) == NUM_TOP
    assert logprobs == pytest.approx(plain_logprobs(reference, reference.prompts[6], token_ids), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_bfloat16_generation_reaches_its_length(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_engine(reference.path, dtype="bfloat16", max_model_len=128, kv_dtype="float32")
    requests = [greedy_request(str(index), prompt, max_tokens=4) for index, prompt in enumerate(reference.prompts)]
    outcome = run_all(core.scheduler, core.runner, requests)
    assert {final.finish_reason for final in outcome.finals.values()} == {FinishReason.LENGTH}
    assert {len(tokens) for tokens in outcome.tokens.values()} == {4}
