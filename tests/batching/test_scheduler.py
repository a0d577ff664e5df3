"""What the scheduler promises, one behaviour at a time; the World checks all invariants along the way."""

from __future__ import annotations

import pytest

from batching.scheduler import Scheduler
from batching.sequence import SequenceStatus
from batching.step import SampledToken, SchedulerOutput, StepOutput
from contracts.generation import FinishReason, GenerationDelta
from contracts.sampling import SamplingParams
from tests.batching.core_world import EOS, World, small_config, small_request


def lengths(plan: SchedulerOutput) -> list[int]:
    return [len(row.token_ids) for row in plan.sequences]


def committed(scheduler: Scheduler, token_id: int, now_s: float = 0.0) -> GenerationDelta:
    """Run one step in which the only row samples `token_id`."""
    plan = scheduler.schedule(now_s)
    assert plan is not None
    output = StepOutput(step_id=plan.step_id, sampled=[SampledToken(token_id=token_id)], duration_s=0.1)
    deltas = scheduler.commit(output, now_s)
    assert len(deltas) == 1
    return deltas[0]


# ---- the step


def test_nothing_to_do_gives_no_plan() -> None:
    world = World(small_config())
    assert world.begin_step() is None
    assert not world.scheduler.is_step_in_flight


def test_second_schedule_without_a_commit_is_refused() -> None:
    world = World(small_config())
    world.admit("a", [0])
    world.planned()
    with pytest.raises(RuntimeError, match="before the step in flight was committed"):
        world.scheduler.schedule(0.0)


def test_commit_without_a_step_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no step in flight"):
        World(small_config()).scheduler.commit(StepOutput(step_id=0, sampled=[], duration_s=0.1), 0.0)


def test_prompts_are_packed_until_the_budget_is_full() -> None:
    world = World(small_config(max_num_batched_tokens=8))
    world.admit("a", [0, 1, 0, 1, 0])
    world.admit("b", [1, 1, 0, 1, 0])
    assert lengths(world.planned()) == [5, 3]
    world.finish_step()
    assert world.log_of("a").token_ids
    assert not world.log_of("b").token_ids


def test_long_prompt_is_computed_in_chunks_and_samples_at_its_end() -> None:
    world = World(small_config(max_num_batched_tokens=2))
    world.admit("a", [0, 1, 0, 1, 0])
    chunks = []
    for _ in range(3):
        chunks += [(row.start, len(row.token_ids), row.is_sampling) for row in world.planned().sequences]
        world.finish_step()
    assert chunks == [(0, 2, False), (2, 2, False), (4, 1, True)]


def test_decodes_come_before_prefills() -> None:
    world = World(small_config())
    world.admit("a", [0, 1])
    world.step()
    world.admit("b", [1, 1, 0])
    plan = world.planned()
    assert [row.seq_id for row in plan.sequences] == [1, 2]
    assert (plan.num_decodes, lengths(plan)) == (1, [1, 3])


def test_prefill_is_capped_while_others_decode() -> None:
    world = World(small_config(max_num_batched_tokens=16, max_prefill_tokens_while_decoding=3))
    world.admit("a", [0])
    world.step()
    world.admit("long", [0, 1, 1, 0, 1, 0, 1])
    assert lengths(world.planned()) == [1, 3]


def test_prefill_has_the_whole_budget_while_nobody_decodes() -> None:
    world = World(small_config(max_num_batched_tokens=16, max_prefill_tokens_while_decoding=3))
    world.admit("long", [0, 1, 1, 0, 1, 0, 1])
    assert lengths(world.planned()) == [7]


def test_batch_has_at_most_max_num_seqs_sequences() -> None:
    world = World(small_config(num_blocks=12, max_num_seqs=2))
    world.admit("a", [0])
    world.admit("b", [1])
    world.admit("c", [0])
    assert lengths(world.planned()) == [1, 1]
    assert world.scheduler.num_waiting == 1


def test_history_is_planned_only_for_penalties() -> None:
    world = World(small_config())
    world.admit("plain", [0, 1])
    world.admit("penalised", [1, 0], presence_penalty=1.0)
    world.step()
    plain, penalised = world.planned().sequences
    assert (plain.prompt_token_ids, plain.output_token_ids) == (None, None)
    assert (penalised.prompt_token_ids, penalised.output_token_ids) == ([1, 0], world.log_of("penalised").token_ids)


# ---- ends


@pytest.mark.parametrize(
    ("sampling", "token_id", "reason"),
    [
        (SamplingParams(max_tokens=2), EOS, FinishReason.STOP),
        (SamplingParams(max_tokens=2, ignore_eos=True), EOS, None),
        (SamplingParams(max_tokens=2, stop_token_ids=(2,)), 2, FinishReason.STOP),
        (SamplingParams(max_tokens=2), 2, None),
        (SamplingParams(max_tokens=1), 2, FinishReason.LENGTH),
        (SamplingParams(max_tokens=1), EOS, FinishReason.STOP),
    ],
    ids=["eos", "eos_ignored", "stop_token", "other_token", "length", "eos_at_full_length"],
)
def test_sampled_token_ends_the_sequence_or_not(
    sampling: SamplingParams, token_id: int, reason: FinishReason | None
) -> None:
    scheduler = Scheduler(small_config())
    request = small_request("a", [0], **{name: getattr(sampling, name) for name in sampling.__struct_fields__})
    scheduler.submit(request, 0.0)
    delta = committed(scheduler, token_id)
    assert (delta.token_ids, delta.finish_reason) == ([token_id], reason)
    assert delta.ended_by_token == (reason is FinishReason.STOP)
    assert scheduler.has_work == (reason is None)


def test_exactly_max_tokens_are_generated() -> None:
    world = World(small_config())
    world.admit("a", [0, 1], max_tokens=5)
    world.drain()
    assert len(world.log_of("a").token_ids) == 5


def test_last_delta_carries_the_times() -> None:
    scheduler = Scheduler(small_config())
    scheduler.submit(small_request("a", [0], max_tokens=2), 1.0)
    first, last = committed(scheduler, 0, 2.0), committed(scheduler, 0, 3.0)
    assert first.times is None
    assert last.times is not None
    assert (last.times.submitted_s, last.times.scheduled_s) == (1.0, 2.0)
    assert (last.times.first_token_s, last.times.finished_s) == (2.0, 3.0)


@pytest.mark.parametrize("timeout_s", [0.0, 1.5])
def test_request_ends_at_its_deadline_and_not_before(timeout_s: float) -> None:
    scheduler = Scheduler(small_config())
    scheduler.submit(small_request("late", [0], timeout_s=timeout_s), 0.0)
    scheduler.submit(small_request("patient", [0], timeout_s=9.0), 0.0)
    scheduler.submit(small_request("endless", [0]), 0.0)
    assert scheduler.expire(timeout_s - 0.001) == []
    assert [(delta.request_id, delta.finish_reason) for delta in scheduler.expire(timeout_s)] == [
        ("late", FinishReason.DEADLINE)
    ]
    assert [delta.request_id for delta in scheduler.expire(9.0)] == ["patient"]
    assert scheduler.num_waiting == 1


def test_deadline_during_a_step_ends_all_samples_and_keeps_their_blocks_until_the_commit() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0], num_samples=2, timeout_s=1.0)
    world.planned()
    world.advance(1.0)
    assert world.scheduler.pool.num_free_blocks == 6
    world.finish_step()
    assert world.scheduler.pool.num_free_blocks == 8
    assert world.log_of("a", 1).finish_reason is FinishReason.DEADLINE


# ---- abort


def test_abort_of_unknown_or_ended_request_gives_nothing() -> None:
    scheduler = Scheduler(small_config())
    scheduler.submit(small_request("a", [0]), 0.0)
    assert len(scheduler.abort("a", 0.0)) == 1
    assert scheduler.abort("a", 0.0) == []
    assert scheduler.abort("never seen", 0.0) == []


def test_abort_ends_every_sample_wherever_it_is() -> None:
    world = World(small_config(max_num_seqs=2, max_num_batched_tokens=16))
    world.admit("a", [0, 1], num_samples=4)
    world.step()
    world.step()
    assert {log.status for log in world.live} == {SequenceStatus.RUNNING, SequenceStatus.WAITING}
    world.abort("a")
    assert not world.scheduler.has_work
    assert world.scheduler.pool.num_free_blocks == world.config.num_blocks


def test_abort_during_a_step_keeps_the_blocks_until_the_commit() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.planned()
    world.abort("a")
    assert world.scheduler.pool.num_free_blocks == 6
    world.finish_step()
    assert world.scheduler.pool.num_free_blocks == 8


def test_token_of_a_sequence_aborted_during_the_step_is_not_delivered() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.admit("b", [0, 1, 1])
    world.planned()
    world.abort("a")
    world.finish_step()
    assert (world.log_of("a").token_ids, len(world.log_of("b").token_ids)) == ([], 1)


def test_id_aborted_during_a_step_can_be_submitted_again_before_the_commit() -> None:
    world = World(small_config())
    world.admit("a", [0, 1, 0])
    world.planned()
    world.abort("a")
    world.admit("a", [1, 1], max_tokens=3)
    world.finish_step()
    world.drain()
    assert len(world.log_of("a").token_ids) == 3


# ---- preemption and order


def test_youngest_is_preempted_and_the_oldest_never() -> None:
    world = World(small_config(num_blocks=5, block_size=1, max_num_batched_tokens=16))
    world.admit("old", [0], max_tokens=4)
    world.admit("young", [1], max_tokens=4)
    world.drain()
    assert world.log_of("old").num_preemptions == 0
    assert world.log_of("young").num_preemptions > 0


def test_preempted_sequence_says_what_it_says_alone() -> None:
    world = World(small_config(num_blocks=5, block_size=1, max_num_batched_tokens=16))
    world.admit("old", [0], max_tokens=4)
    world.admit("young", [1], max_tokens=4)
    world.drain()
    young = world.log_of("young")
    assert (young.token_ids, young.finish_reason) == young.solo


def test_preempted_sequence_goes_before_those_that_came_later() -> None:
    world = World(small_config(num_blocks=5, block_size=1, max_num_seqs=2, max_num_batched_tokens=16))
    world.admit("old", [0], max_tokens=4)
    world.admit("young", [1], max_tokens=4)
    world.admit("last", [1], max_tokens=1)
    world.drain()
    assert world.log_of("young").num_preemptions > 0
    assert world.log_of("last").admission > world.log_of("young").admission


@pytest.mark.parametrize("num_blocks", [11, 12, 13, 14, 15])
def test_among_equals_nobody_is_preempted_more_than_twice(num_blocks: int) -> None:
    config = small_config(
        num_blocks=num_blocks, block_size=1, max_num_seqs=6, max_num_batched_tokens=64, limits=(24, 20, 1000)
    )
    world = World(config)
    for number in range(12):
        world.admit(f"r{number}", [0], max_tokens=10, cache_salt=str(number))
    world.drain()
    assert max(log.num_preemptions for log in world.logs.values()) == 2


def test_head_of_the_queue_that_does_not_fit_holds_back_those_behind() -> None:
    world = World(small_config(num_blocks=4, block_size=2, max_num_batched_tokens=16))
    world.admit("running", [0, 1, 0], max_tokens=3)
    world.step()
    world.admit("large", [1, 1, 1, 0, 1], max_tokens=1)
    world.admit("small", [1], max_tokens=1)
    world.step()
    assert [world.log_of(name).status for name in ("large", "small")] == [SequenceStatus.WAITING] * 2
    world.drain()


def test_smaller_priority_number_goes_first() -> None:
    world = World(small_config(max_num_seqs=1))
    world.admit("normal", [0], priority=0)
    world.admit("urgent", [0], priority=-1)
    world.admit("later", [0], priority=1)
    order = [world.logs[world.planned().sequences[0].seq_id].request.request_id]
    world.finish_step()
    world.abort("urgent")
    order.append(world.logs[world.planned().sequences[0].seq_id].request.request_id)
    assert order == ["urgent", "normal"]


@pytest.mark.parametrize(("waited_s", "first"), [(1.9, "urgent"), (2.1, "patient")])
def test_waiting_makes_up_for_a_higher_priority_number(waited_s: float, first: str) -> None:
    world = World(small_config(max_num_seqs=1))
    world.admit("patient", [0], priority=1)
    world.advance(waited_s)
    world.admit("urgent", [0], priority=0)
    assert world.logs[world.planned().sequences[0].seq_id].request.request_id == first
