"""The engine without a server, and the sizes that an engine derives from its settings."""

from __future__ import annotations

import pytest

from batching.engine import EngineCore, build_engine
from batching.model_loader import no_progress
from batching.offline import OfflineEngine
from contracts.errors import ContextLengthExceeded, NotEnoughMemory
from contracts.generation import FinishReason
from tests.batching.real_engine import Outcome, engine_settings, greedy_request, run_all, start_engine
from tests.batching.tiny_models import NUM_NEW_TOKENS, Reference, TinyModels


@pytest.fixture(scope="module")
def reference(tiny_models: TinyModels) -> Reference:
    return tiny_models.reference("llama")


@pytest.fixture(scope="module")
def core(reference: Reference) -> EngineCore:
    return start_engine(reference.path)


def test_second_call_finds_the_prompts_of_the_first(reference: Reference) -> None:
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    with OfflineEngine(engine_settings(reference.path)) as engine:
        first, second = Outcome(), Outcome()
        first.add(list(engine.generate(requests)))
        second.add(list(engine.generate(requests)))
    assert second.num_cached_tokens > first.num_cached_tokens
    assert first.tokens == second.tokens


def test_request_that_cannot_fit_stops_the_call_before_it_runs(reference: Reference) -> None:
    requests = [greedy_request("good", [1, 2]), greedy_request("bad", [1] * 500)]
    with OfflineEngine(engine_settings(reference.path)) as engine, pytest.raises(ContextLengthExceeded):
        next(engine.generate(requests))


def test_stop_token_of_the_model_ends_the_text(reference: Reference, core: EngineCore) -> None:
    prompt, output = reference.prompts[3], reference.outputs[3]
    eos = output[5]
    request = greedy_request("a", prompt, stop_token_ids=(eos,))
    outcome = run_all(core.scheduler, core.runner, [request])
    assert outcome.text("a") == output[: output.index(eos) + 1]
    final = outcome.finals["a", 0]
    assert (final.finish_reason, final.ended_by_token) == (FinishReason.STOP, True)


def test_text_ends_with_the_window(reference: Reference) -> None:
    prompt, output = reference.prompts[-1], reference.outputs[-1]
    core = start_engine(reference.path, max_model_len=len(prompt) + NUM_NEW_TOKENS)
    outcome = run_all(core.scheduler, core.runner, [greedy_request("a", prompt)])
    assert outcome.text("a") == output
    assert outcome.finals["a", 0].finish_reason is FinishReason.LENGTH


def test_info_tells_what_is_served(reference: Reference, core: EngineCore) -> None:
    info = core.info
    assert (info.architecture, info.device, info.dtype) == ("LlamaForCausalLM", "cpu", "float32")
    assert (info.vocab_size, info.max_model_len, info.block_size) == (128, 160, 16)
    assert info.model_path == str(reference.path)
    assert info.num_blocks == 4 * 2**20 // (2 * 2 * 2 * 16 * 4 * 16)


def test_cache_is_no_larger_than_a_full_batch_can_use(reference: Reference) -> None:
    info = start_engine(reference.path, max_num_seqs=3, kv_cache_memory="64MiB").info
    assert info.num_blocks == 3 * 160 // 16


def test_cache_too_small_for_the_window_is_refused(reference: Reference) -> None:
    with pytest.raises(NotEnoughMemory, match="lower --max-model-len to 64"):
        build_engine(engine_settings(reference.path, kv_cache_memory="33KiB"), no_progress)


def test_fingerprint_is_stable_and_follows_the_dtype(reference: Reference, core: EngineCore) -> None:
    again = start_engine(reference.path).info
    narrow = start_engine(reference.path, dtype="bfloat16").info
    assert again.fingerprint == core.info.fingerprint
    assert narrow.fingerprint != core.info.fingerprint
