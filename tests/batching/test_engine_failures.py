"""A row that breaks fails alone: the others say what they say alone, and nothing broken is ever read again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from batching.engine import EngineCore
from batching.isolation import execute_isolated, is_out_of_memory
from batching.model_runner import ModelRunner
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from contracts.generation import FinishReason, GenerationRequest
from contracts.sampling import SamplingParams
from tests.batching.real_engine import (
    Outcome,
    fresh_scheduler,
    greedy_request,
    ignore_log,
    request_of,
    run_all,
    run_step,
    start_engine,
)
from tests.batching.tiny_models import TinyModels, make_prompt

POISON_TOKEN = 127
"""Prompts of these tests avoid it unless they are meant to break."""


class PoisonedRunner:
    """Raises for every plan in which a row computes the poison token; else does what the real one does."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.num_raised = 0

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        if any(POISON_TOKEN in row.token_ids for row in plan.sequences):
            self.num_raised += 1
            raise ValueError("the model met the poison token")
        output: StepOutput = self._runner.execute(plan)
        return output


class CountingRunner:
    """A fake model: the next token is the number of tokens so far."""

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        sampled = [SampledToken(token_id=row.context_len) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(step_id=plan.step_id, sampled=list(sampled), duration_s=0.0)


def fake_scheduler() -> Scheduler:
    config = SchedulerConfig(
        num_blocks=64, block_size=4, max_model_len=128, vocab_size=128, eos_token_ids=frozenset(), max_num_seqs=8
    )
    return Scheduler(config)


def clean_prompt(length: int, seed: int) -> list[int]:
    return [token % POISON_TOKEN for token in make_prompt(length, seed)]


def greedy_requests(num: int) -> list[GenerationRequest]:
    return [greedy_request(str(index), clean_prompt(3 + 4 * index, index), max_tokens=6) for index in range(num)]


@pytest.fixture(scope="module")
def core(tiny_models: TinyModels) -> EngineCore:
    return start_engine(tiny_models.reference("llama").path, block_size=4)


@pytest.fixture
def runner(core: EngineCore) -> Iterator[ModelRunner]:
    """The real runner, its KV cache empty before and after."""
    assert isinstance(core.runner, ModelRunner)
    pool = core.runner._pool
    pool.clear(list(range(pool.num_blocks)))
    yield core.runner
    pool.clear(list(range(pool.num_blocks)))


def break_block(runner: ModelRunner, block_id: int) -> None:
    """Write NaN over the first layer of a block, as a bad memory cell or an overflow would."""
    runner._pool.layers[0].k[block_id] = float("nan")


@torch.inference_mode()
def break_embedding(core: EngineCore, token_id: int) -> None:
    """Make one token's embedding NaN, in whichever forward pass was chosen."""
    assert isinstance(core.runner, ModelRunner)
    forward: Any = core.runner._forward
    fused = getattr(forward, "_embedding", None)
    weight = forward._model.get_input_embeddings().weight if fused is None else fused
    weight[token_id] = float("nan")


def test_step_that_raises_is_halved_until_the_row_that_raises_is_alone() -> None:
    scheduler, outcome = fake_scheduler(), Outcome()
    runner = PoisonedRunner(CountingRunner())
    scheduler.submit(request_of("good", [1, 2, 3], max_tokens=3), 0.0)
    scheduler.submit(request_of("bad", [1, POISON_TOKEN], max_tokens=3), 0.0)
    scheduler.submit(request_of("other", [1], max_tokens=3), 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    assert runner.num_raised == 3  # the whole step, its half with the row, then the row alone
    assert outcome.finals["bad", 0].finish_reason is FinishReason.ERROR
    assert outcome.finals["bad", 0].error == "the model failed on this request (ValueError)"
    assert outcome.text("good") == [3]
    assert outcome.text("other") == [1]


def plan_of(*rows: ScheduledSequence, num_decodes: int = 0) -> SchedulerOutput:
    num_tokens = sum(len(row.token_ids) for row in rows)
    return SchedulerOutput(
        step_id=7, sequences=list(rows), num_tokens=num_tokens, num_decodes=num_decodes, blocks_to_clear=[5, 6]
    )


def row_of(seq_id: int, token_ids: list[int], start: int = 0, *, is_sampling: bool = True) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=seq_id,
        token_ids=token_ids,
        start=start,
        block_ids=[seq_id],
        is_sampling=is_sampling,
        sampling=SamplingParams(),
        seed=0,
        num_output_tokens=0,
    )


class SmallMemory:
    """Runs out of memory for more than `max_tokens` tokens; counts like CountingRunner and notes what it ran."""

    def __init__(self, max_tokens: int, error: Exception) -> None:
        self.max_tokens = max_tokens
        self.error = error
        self.plans: list[SchedulerOutput] = []

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        if plan.num_tokens > self.max_tokens:
            raise self.error
        self.plans.append(plan)
        return CountingRunner().execute(plan)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu"])
def test_step_that_runs_out_of_memory_is_computed_in_halves_and_says_so(error: Exception) -> None:
    runner = SmallMemory(4, error)
    plan = plan_of(row_of(1, [1]), row_of(2, [1]), row_of(3, [1, 2, 3]), row_of(4, [1, 2]), num_decodes=2)
    output = execute_isolated(runner, plan, ignore_log)
    assert output.was_out_of_memory
    assert [token and token.token_id for token in output.sampled] == [1, 1, 3, 2]
    assert [[row.seq_id for row in part.sequences] for part in runner.plans] == [[1, 2], [3], [4]]
    assert [part.num_decodes for part in runner.plans] == [2, 0, 0]
    assert [part.blocks_to_clear for part in runner.plans] == [[5, 6], [], []]
    assert [part.num_tokens for part in runner.plans] == [2, 3, 2]


def test_lone_chunk_that_runs_out_of_memory_is_cut() -> None:
    runner = SmallMemory(2, MemoryError())
    output = execute_isolated(runner, plan_of(row_of(1, [10, 11, 12, 13, 14], start=3)), ignore_log)
    assert [token and token.token_id for token in output.sampled] == [8]
    pieces = [(part.sequences[0].start, part.sequences[0].token_ids) for part in runner.plans]
    assert pieces == [(3, [10, 11]), (5, [12]), (6, [13, 14])]
    assert [part.sequences[0].is_sampling for part in runner.plans] == [False, False, True]
    assert [part.blocks_to_clear for part in runner.plans] == [[5, 6], [], []]


def test_chunk_that_does_not_sample_is_cut_alike() -> None:
    runner = SmallMemory(2, MemoryError())
    output = execute_isolated(runner, plan_of(row_of(1, [10, 11, 12], is_sampling=False)), ignore_log)
    assert (output.sampled, output.was_out_of_memory) == ([None], True)


def test_token_that_does_not_fit_alone_fails_alone() -> None:
    runner = SmallMemory(0, MemoryError())
    output = execute_isolated(runner, plan_of(row_of(1, [10, 11]), row_of(2, [1])), ignore_log)
    errors = [token and token.error for token in output.sampled]
    assert errors == ["the model failed on this request (MemoryError)"] * 2


def test_row_that_raises_otherwise_is_not_cut_and_is_no_shortage() -> None:
    runner = PoisonedRunner(CountingRunner())
    output = execute_isolated(runner, plan_of(row_of(1, [1, POISON_TOKEN, 2]), row_of(2, [1])), ignore_log)
    assert runner.num_raised == 2
    assert not output.was_out_of_memory
    assert [token and token.token_id for token in output.sampled] == [0, 1]


def test_only_a_failed_allocation_is_a_shortage() -> None:
    assert not is_out_of_memory(RuntimeError("the model met the poison token"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


def test_torch_still_words_it_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


def test_failure_holds_no_tensors_while_the_halves_run() -> None:
    alive = weakref.WeakSet[torch.Tensor]()

    class Hoarder:
        """Allocates, then fails; the second call looks at what is left of the first."""

        def execute(self, plan: SchedulerOutput) -> StepOutput:
            assert not alive, "what the failed step allocated is still there"
            if len(plan.sequences) == 1:
                return CountingRunner().execute(plan)
            activations = torch.zeros(4)
            alive.add(activations)
            raise MemoryError

    output = execute_isolated(Hoarder(), plan_of(row_of(1, [1]), row_of(2, [1])), ignore_log)
    assert [token and token.error for token in output.sampled] == [None, None]


@pytest.mark.parametrize("max_tokens", [1, 3, 8])
def test_shortage_loses_and_changes_nothing(core: EngineCore, runner: ModelRunner, max_tokens: int) -> None:
    requests = greedy_requests(5)
    whole = run_all(fresh_scheduler(core), runner, requests)

    class Short(SmallMemory):
        def execute(self, plan: SchedulerOutput) -> StepOutput:
            super().execute(plan)
            return runner.execute(plan)

    scheduler = fresh_scheduler(core)
    short = run_all(scheduler, Short(max_tokens, MemoryError()), requests)
    assert short.tokens == whole.tokens
    assert scheduler.counters.num_out_of_memory > 0
    assert scheduler.counters.num_failed == 0


def test_failed_step_is_logged_once_with_its_size() -> None:
    scheduler = fake_scheduler()
    scheduler.submit(request_of("bad", [POISON_TOKEN], max_tokens=3), 0.0)
    plan = scheduler.schedule(0.0)
    assert plan is not None
    lines: list[tuple[str, dict[str, object]]] = []
    execute_isolated(PoisonedRunner(CountingRunner()), plan, lambda event, **data: lines.append((event, data)))
    assert [event for event, _ in lines] == ["step_failed"]
    assert lines[0][1]["num_sequences"] == 1


def test_every_row_may_fail() -> None:
    scheduler = fake_scheduler()
    requests = [request_of(str(index), [POISON_TOKEN] * (index + 1)) for index in range(4)]
    outcome = run_all(scheduler, PoisonedRunner(CountingRunner()), requests)
    assert [final.finish_reason for final in outcome.finals.values()] == [FinishReason.ERROR] * 4
    assert scheduler.pool.num_free_blocks == scheduler.pool.num_blocks
    assert scheduler.counters.num_failed == 4


def test_others_say_what_they_say_alone_when_a_forward_raises(core: EngineCore, runner: ModelRunner) -> None:
    requests = greedy_requests(5)
    solo = run_all(fresh_scheduler(core, max_num_seqs=1), runner, requests)
    bad = greedy_request("bad", [*clean_prompt(6, 50), POISON_TOKEN])
    mixed = run_all(fresh_scheduler(core), PoisonedRunner(runner), [*requests[:2], bad, *requests[2:]])
    assert mixed.finals["bad", 0].finish_reason is FinishReason.ERROR
    assert [mixed.text(str(index)) for index in range(5)] == [solo.text(str(index)) for index in range(5)]


def test_one_failing_sample_leaves_the_others_of_its_request(core: EngineCore, runner: ModelRunner) -> None:
    request = request_of("three", clean_prompt(9, 3), num_samples=3, max_tokens=6, seed=5)
    whole = run_all(fresh_scheduler(core), runner, [request])
    scheduler, outcome = fresh_scheduler(core), Outcome()
    scheduler.submit(request, 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    run_step(scheduler, runner, outcome, 1.0)
    break_block(runner, scheduler._running[1].block_table.block_ids[-1])
    for now_s in range(2, 7):
        run_step(scheduler, runner, outcome, float(now_s))
    assert outcome.finals["three", 1].finish_reason is FinishReason.ERROR
    assert outcome.text("three", 0) == whole.text("three", 0)
    assert outcome.text("three", 2) == whole.text("three", 2)


def test_broken_cache_of_one_row_fails_that_request_only(core: EngineCore, runner: ModelRunner) -> None:
    requests = greedy_requests(4)
    solo = run_all(fresh_scheduler(core, max_num_seqs=1), runner, requests)
    scheduler, outcome = fresh_scheduler(core), Outcome()
    for request in requests:
        scheduler.submit(request, 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    broken = list(scheduler._running[2].block_table.block_ids)
    break_block(runner, broken[0])
    for now_s in range(1, 6):
        run_step(scheduler, runner, outcome, float(now_s))
    final = outcome.finals["2", 0]
    assert final.finish_reason is FinishReason.ERROR
    assert "NaN" in (final.error or "")
    assert [outcome.text(name) for name in ("0", "1", "3")] == [solo.text(name) for name in ("0", "1", "3")]


def test_chunk_that_breaks_fails_before_it_samples_and_alone(core: EngineCore, runner: ModelRunner) -> None:
    prompt, other = clean_prompt(22, 9), greedy_request("other", clean_prompt(5, 1), max_tokens=8)
    solo = run_all(fresh_scheduler(core), runner, [other]).text("other")
    right = run_all(fresh_scheduler(core), runner, [greedy_request("first", prompt, max_tokens=6)]).text("first")
    scheduler, outcome = fresh_scheduler(core, max_num_batched_tokens=9, max_prefill_tokens_while_decoding=8), Outcome()
    scheduler.submit(other, 0.0)
    scheduler.submit(greedy_request("broken", prompt, max_tokens=6), 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    assert scheduler.pool.num_cached_blocks == 0
    break_block(runner, scheduler._running[1].block_table.block_ids[0])
    plan = scheduler.schedule(1.0)
    assert plan is not None
    assert [row.is_sampling for row in plan.sequences] == [True, False]
    outcome.add(scheduler.commit(execute_isolated(runner, plan, ignore_log), 1.0))
    assert outcome.finals["broken", 0].finish_reason is FinishReason.ERROR
    assert "position 12 contain NaN" in (outcome.finals["broken", 0].error or "")
    rest = run_all(scheduler, runner, [greedy_request("again", prompt, max_tokens=6)])
    assert rest.text("again") == right
    assert outcome.text("other") + rest.text("other") == solo
    assert rest.finals["again", 0].num_cached_tokens == 0


@pytest.mark.parametrize("at", [0, 3, 7], ids=["first", "middle", "last"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_token_that_breaks_the_model_is_noticed_in_its_chunk(tiny_models: TinyModels, family: str, at: int) -> None:
    broken_core = start_engine(tiny_models.reference(family).path, block_size=4)
    break_embedding(broken_core, POISON_TOKEN)
    prompt = clean_prompt(20, 4)
    prompt[at] = POISON_TOKEN
    scheduler, outcome = fresh_scheduler(broken_core, max_num_batched_tokens=8), Outcome()
    scheduler.submit(greedy_request("broken", prompt), 0.0)
    run_step(scheduler, broken_core.runner, outcome, 0.0)
    assert outcome.finals["broken", 0].finish_reason is FinishReason.ERROR
    assert scheduler.pool.num_cached_blocks == 0


def test_blocks_of_a_broken_request_are_forgotten_and_zeroed(core: EngineCore, runner: ModelRunner) -> None:
    prompt = clean_prompt(22, 9)
    right = run_all(fresh_scheduler(core), runner, [greedy_request("first", prompt, max_tokens=6)]).text("first")
    scheduler, outcome = fresh_scheduler(core), Outcome()
    scheduler.submit(greedy_request("broken", prompt, max_tokens=6), 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    broken = list(scheduler._running[0].block_table.block_ids)
    break_block(runner, broken[1])
    run_step(scheduler, runner, outcome, 1.0)
    assert outcome.finals["broken", 0].finish_reason is FinishReason.ERROR
    assert scheduler.pool.num_cached_blocks == 0
    again = run_all(scheduler, runner, [greedy_request("again", prompt, max_tokens=6)])
    assert again.text("again") == right
    assert again.num_cached_tokens == 0
    assert all(bool(layer.k[broken].isfinite().all()) for layer in runner._pool.layers)


def test_request_aborted_in_the_step_that_broke_it_leaves_no_nan_behind(core: EngineCore, runner: ModelRunner) -> None:
    prompt = clean_prompt(22, 9)
    right = run_all(fresh_scheduler(core), runner, [greedy_request("first", prompt, max_tokens=6)]).text("first")
    scheduler, outcome = fresh_scheduler(core), Outcome()
    scheduler.submit(greedy_request("broken", prompt, max_tokens=6), 0.0)
    run_step(scheduler, runner, outcome, 0.0)
    break_block(runner, scheduler._running[0].block_table.block_ids[1])
    plan = scheduler.schedule(1.0)
    assert plan is not None
    outcome.add(scheduler.abort("broken", 1.0))
    outcome.add(scheduler.commit(execute_isolated(runner, plan, ignore_log), 1.0))
    assert outcome.finals["broken", 0].finish_reason is FinishReason.ABORT
    again = run_all(scheduler, runner, [greedy_request("again", prompt, max_tokens=6)])
    assert again.text("again") == right


def test_garbage_in_free_blocks_reaches_nobody(core: EngineCore, runner: ModelRunner) -> None:
    requests = greedy_requests(4)
    clean = run_all(fresh_scheduler(core), runner, requests)
    for layer in runner._pool.layers:
        layer.k.fill_(torch.nan)
        layer.v.fill_(torch.nan)
    dirty = run_all(fresh_scheduler(core, max_num_batched_tokens=7), runner, requests)
    assert dirty.tokens == clean.tokens
