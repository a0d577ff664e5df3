"""Over device rows every family says what transformers says, one step at a time and one step ahead."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from batching.device_runner import DeviceRunner
from batching.engine import EngineCore
from batching.row_tables import NUM_TOKENS
from batching.sampler import EDITED_ERROR
from batching.step import SampledToken, SchedulerOutput
from contracts.sampling import SamplingParams
from tests.batching.device_rig import (
    FailingForward,
    Job,
    LagOneDriver,
    make_runner,
    plan_of,
    prompt_row,
    start_device_engine,
)
from tests.batching.real_engine import (
    fresh_scheduler,
    greedy_request,
    request_of,
    run_all,
    run_with_arrivals,
    start_engine,
    vary_budget,
)
from tests.batching.tiny_models import (
    FAMILIES,
    NUM_NEW_TOKENS,
    Reference,
    TinyModels,
    greedy,
    make_config,
    make_model,
    make_prompt,
    save,
)

LEAN_FAMILIES = ("llama", "llama31", "qwen2", "qwen3", "mistral_window")
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9, "num_logprobs": 3},
    {"temperature": 1.3, "top_k": 20, "num_logprobs": 0},
    {"temperature": 1.0, "min_p": 0.05, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "repetition_penalty": 1.2, "logit_bias": ((7, 2.0), (9, -100.0))},
    {"temperature": 1.5, "min_tokens": 6, "stop_token_ids": (3, 5, 8, 13, 21, 34, 55, 89), "num_logprobs": 20},
    {"temperature": 0.0, "repetition_penalty": 1.3, "num_logprobs": 1},
)


def outputs(core: EngineCore, reference: Reference, **limits: Any) -> list[list[int]]:
    scheduler = fresh_scheduler(core, **limits)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    outcome = run_all(scheduler, core.runner, requests)
    return [outcome.text(request.request_id) for request in requests]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_continues_as_in_transformers(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_device_engine(reference.path, block_size=4, max_model_len=128)
    assert outputs(core, reference, max_num_batched_tokens=23) == reference.outputs
    assert (core.forward_name == "DeviceLlama") == (family in LEAN_FAMILIES)


@pytest.mark.parametrize("family", ["llama", "mistral_window", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("block_size", [4, 16])
def test_arrivals_chunks_and_preemption_change_no_token(tiny_models: TinyModels, family: str, block_size: int) -> None:
    reference = tiny_models.reference(family)
    core = start_device_engine(reference.path, block_size=block_size, max_model_len=128)
    scheduler = fresh_scheduler(core, num_blocks=96 // block_size)
    draw = random.Random(2)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    draw.shuffle(requests)
    outcome = run_with_arrivals(scheduler, core.runner, requests, draw, vary_budget)
    assert [outcome.text(str(index)) for index in range(len(requests))] == reference.outputs
    assert scheduler.counters.num_preemptions > 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prefix_cache_hits_change_no_token(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    core = start_device_engine(reference.path, block_size=4, max_model_len=128)
    scheduler = fresh_scheduler(core, max_num_batched_tokens=32)
    first = [greedy_request(f"first-{index}", prompt, max_tokens=1) for index, prompt in enumerate(reference.prompts)]
    again = [greedy_request(f"again-{index}", prompt) for index, prompt in enumerate(reference.prompts)]
    run_all(scheduler, core.runner, first)
    warm = run_all(scheduler, core.runner, again)
    assert warm.num_cached_tokens > 0
    assert [warm.text(request.request_id) for request in again] == reference.outputs


def test_tied_embeddings_are_shared_by_both_ends(tmp_path: Path) -> None:
    model = make_model(make_config("llama", tie_word_embeddings=True), seed=0)
    prompts = [make_prompt(length, seed=7) for length in (1, 17, 40)]
    expected = [greedy(model, prompt, NUM_NEW_TOKENS)[0] for prompt in prompts]
    reference = Reference(save(model, tmp_path), prompts, expected)
    assert outputs(start_device_engine(reference.path), reference) == expected


# ---- sampling


def sampled_requests() -> list[Any]:
    return [
        request_of(f"{index}-{prompt_len}", make_prompt(prompt_len, index), seed=index, max_tokens=10, **options)
        for index, options in enumerate(OPTIONS)
        for prompt_len in (3, 19)
    ]


@pytest.mark.parametrize(("num_blocks", "budget"), [(400, 64), (14, 60)], ids=["ample", "preempted"])
def test_sampled_tokens_are_those_of_the_other_runner(tiny_models: TinyModels, num_blocks: int, budget: int) -> None:
    path = tiny_models.reference("llama").path
    core = start_device_engine(path, block_size=4, max_model_len=40)
    other = start_engine(path, block_size=4, max_model_len=40)
    scheduler = fresh_scheduler(core, num_blocks=num_blocks, max_num_batched_tokens=budget)
    expected = run_all(fresh_scheduler(other), other.runner, sampled_requests())
    outcome = run_all(scheduler, core.runner, sampled_requests())
    assert outcome.tokens == expected.tokens
    assert (scheduler.counters.num_preemptions > 0) == (num_blocks == 14)


def test_log_probabilities_are_those_of_the_other_runner(tiny_models: TinyModels) -> None:
    path = tiny_models.reference("llama").path
    other = start_engine(path, block_size=4, max_num_seqs=8).runner
    rows = [
        prompt_row(index, make_prompt(5, index), SamplingParams(**options)) for index, options in enumerate(OPTIONS)
    ]
    ours = make_runner(path).execute(plan_of(rows)).sampled
    theirs = other.execute(plan_of(rows)).sampled
    assert [token is not None and token.token_id for token in ours] == [token and token.token_id for token in theirs]
    assert [flattened(token) for token in ours] == [pytest.approx(flattened(token), abs=1e-5) for token in theirs]


def flattened(token: Any) -> list[float]:
    if token.logprob is None:
        return []
    return [token.logprob.logprob, *(number for pair in token.logprob.top for number in pair)]


# ---- one step ahead


def jobs_for(reference: Reference, **changes: Any) -> list[Job]:
    return [
        Job(seq_id=index, prompt=prompt, max_tokens=24, **changes) for index, prompt in enumerate(reference.prompts)
    ]


@pytest.mark.parametrize("family", ["llama", "mistral_window", "gpt2", "gpt_oss"])
@pytest.mark.parametrize("chunk_len", [7, 100])
def test_one_step_ahead_says_what_transformers_says(tiny_models: TinyModels, family: str, chunk_len: int) -> None:
    reference = tiny_models.reference(family)
    jobs = jobs_for(reference)
    for index, job in enumerate(jobs):
        job.arrives_at = 5 * index
    driver = LagOneDriver(make_runner(reference.path), jobs, chunk_len=chunk_len, num_blocks=120)
    assert list(driver.run().values()) == reference.outputs
    assert driver.num_ahead == len(jobs) * 23


@pytest.mark.parametrize("seed", range(6))
def test_preemption_and_failed_launches_one_step_ahead_change_no_token(tiny_models: TinyModels, seed: int) -> None:
    reference = tiny_models.reference("llama")
    draw = random.Random(seed)
    jobs = jobs_for(reference)
    for job in jobs:
        job.arrives_at = draw.randrange(30)
    failing = {call + offset for call in draw.sample(range(1, 200, 5), 20) for offset in range(draw.randrange(1, 4))}
    runner = make_runner(reference.path, lambda forward: FailingForward(forward, failing), max_num_seqs=4)
    driver = LagOneDriver(runner, jobs, chunk_len=draw.choice([3, 8, 30]), num_blocks=160, draw=draw)
    assert list(driver.run().values()) == reference.outputs
    assert driver.num_preemptions > 3
    assert driver.num_in_parts > 0


def test_rows_wasted_after_a_stop_disturb_nobody(tiny_models: TinyModels) -> None:
    """Blocks and rows of the ended are used by later ones; there are many more sequences than rows."""
    reference = tiny_models.reference("llama")
    runner = make_runner(reference.path, max_num_seqs=2)
    jobs = [
        Job(
            seq_id=index,
            prompt=reference.prompts[index % 6],
            max_tokens=24,
            stops_after=1 + index % 5,
            arrives_at=index * 2,
        )
        for index in range(150)
    ]
    driver = LagOneDriver(runner, jobs, chunk_len=16, num_blocks=60)
    found = driver.run()
    assert found == {job.seq_id: reference.outputs[job.seq_id % 6][: 1 + job.seq_id % 5] for job in jobs}


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_sampling_one_step_ahead_is_that_of_single_steps(tiny_models: TinyModels, options: dict[str, Any]) -> None:
    path = tiny_models.reference("llama").path
    sampling = SamplingParams(**options)
    prompts = [make_prompt(length, length) for length in (1, 9, 30)]
    other = start_engine(path, block_size=4, max_num_seqs=8).runner
    ahead = [Job(seq_id=i, prompt=prompt, max_tokens=12, sampling=sampling) for i, prompt in enumerate(prompts)]
    found = LagOneDriver(make_runner(path), ahead, chunk_len=8, num_blocks=64).run()
    assert found == {index: one_by_one(other, index, prompt, sampling) for index, prompt in enumerate(prompts)}


def one_by_one(runner: Any, seq_id: int, prompt: list[int], sampling: SamplingParams) -> list[int]:
    """Twelve tokens, each from the whole text before it."""
    output: list[int] = []
    for _ in range(12):
        row = prompt_row(
            seq_id,
            prompt + output,
            sampling,
            block_ids=list(range(20)),
            num_output_tokens=len(output),
            prompt_token_ids=prompt,
            output_token_ids=list(output),
        )
        output.append(runner.execute(plan_of([row])).sampled[0].token_id)
    return output


# ---- failures


def test_a_launch_that_raises_can_be_made_again(tiny_models: TinyModels) -> None:
    reference = tiny_models.reference("llama")
    failing: list[FailingForward] = []

    def wrap(forward: Any) -> Any:
        failing.append(FailingForward(forward, {1, 4, 5 + 6, 20, 30}))
        return failing[0]

    driver = LagOneDriver(make_runner(reference.path, wrap), jobs_for(reference), chunk_len=9, num_blocks=200)
    assert list(driver.run().values()) == reference.outputs
    assert failing[0].num_calls > 30


def test_halves_of_a_plan_that_raised_say_the_same(tiny_models: TinyModels) -> None:
    reference = tiny_models.reference("llama")
    core = start_device_engine(reference.path, block_size=4)
    runner = make_runner(
        reference.path, lambda forward: FailingForward(forward, {2, 3, 9, 10, 11, 30, 31}), max_num_seqs=16
    )
    scheduler = fresh_scheduler(core, max_num_batched_tokens=23)
    requests = [greedy_request(str(index), prompt) for index, prompt in enumerate(reference.prompts)]
    outcome = run_all(scheduler, runner, requests)
    assert [outcome.text(request.request_id) for request in requests] == reference.outputs


BROKEN_TOKEN = 120
"""Behind the token ids of the probe."""


def test_broken_numbers_fail_their_row_alone(tmp_path: Path) -> None:
    model: Any = make_model(make_config("llama"), seed=0)
    with torch.no_grad():
        model.model.embed_tokens.weight[BROKEN_TOKEN] = float("nan")
    path = save(model, tmp_path)
    rows = [prompt_row(index, [token % 100 for token in make_prompt(5, index)]) for index in range(4)]
    rows[1] = prompt_row(1, [3, BROKEN_TOKEN, 4])
    rows[3] = prompt_row(3, [5, BROKEN_TOKEN], is_sampling=False)
    ours = make_runner(path).execute(plan_of(rows))
    theirs = start_engine(path, block_size=4, max_num_seqs=8).runner.execute(plan_of(rows))
    assert ours.sampled == theirs.sampled
    assert [token is not None and token.error is not None for token in ours.sampled] == [False, True, False, True]


def test_edits_that_leave_no_token_are_told_as_such(tiny_models: TinyModels) -> None:
    sampling = SamplingParams(temperature=0.0, min_tokens=2, stop_token_ids=tuple(range(128)))
    rows = [prompt_row(0, [1, 2, 3]), prompt_row(1, [4, 5], sampling)]
    sound, broken = make_runner(tiny_models.reference("llama").path).execute(plan_of(rows)).sampled
    assert sound is not None
    assert sound.error is None
    assert broken == SampledToken(token_id=0, error=EDITED_ERROR.format(position=2))


def test_a_sound_chunk_that_does_not_sample_gives_nothing(tiny_models: TinyModels) -> None:
    runner = make_runner(tiny_models.reference("llama").path)
    rows = [prompt_row(0, [1, 2, 3], is_sampling=False), prompt_row(1, [1, 2, 3])]
    output = runner.execute(plan_of(rows))
    assert output.sampled[0] is None
    assert output.sampled[1] is not None
    assert output.duration_s > 0


def test_cleared_blocks_are_zero_before_the_step(tiny_models: TinyModels) -> None:
    runner = make_runner(tiny_models.reference("llama").path)
    layer = runner._pool.layers[0]
    layer.k[7] = float("nan")
    plan = SchedulerOutput(
        step_id=0, sequences=[prompt_row(0, [1, 2])], num_tokens=2, num_decodes=0, blocks_to_clear=[7]
    )
    runner.execute(plan)
    assert not layer.k[7].any()


def test_calls_out_of_turn_are_refused(tiny_models: TinyModels) -> None:
    runner = make_runner(tiny_models.reference("llama").path)
    with pytest.raises(RuntimeError, match="no step in flight"):
        runner.collect()
    runner.launch(plan_of([prompt_row(0, [1, 2])]))
    with pytest.raises(RuntimeError, match="collect it first"):
        runner.execute(plan_of([prompt_row(1, [1, 2])]))
    runner.launch(plan_of([prompt_row(1, [1, 2])]))
    with pytest.raises(RuntimeError, match="2 steps are in flight"):
        runner.launch(plan_of([prompt_row(2, [1, 2])]))


def test_more_rows_than_there_is_room_for_are_refused(tiny_models: TinyModels) -> None:
    runner = make_runner(tiny_models.reference("llama").path)
    rows = [prompt_row(index, [1], block_ids=[index]) for index in range(33)]
    with pytest.raises(ValueError, match="a plan of 33 sequences, at most 32"):
        runner.launch(plan_of(rows))


def test_the_device_counts_what_was_computed(tiny_models: TinyModels) -> None:
    runner: DeviceRunner = make_runner(tiny_models.reference("llama").path)
    runner.execute(plan_of([prompt_row(0, [1, 2, 3])]))
    row = runner._book.row_of(0)
    assert row is not None
    assert runner._tables.records[row, NUM_TOKENS : NUM_TOKENS + 2].tolist() == [4, 3]
