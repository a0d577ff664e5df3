"""The journal says why a sequence waited and whom it shared its steps with, exactly, for each cause."""

from __future__ import annotations

import pytest

from batching.journal import HOLDERS_EVERY, NUM_TURNS, Journal
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, StepOutput
from contracts.generation import FinishReason, GenerationDelta, Tenant
from contracts.records import MAX_CHUNKS, BlockHolder, Chunk, SampleRecord, StepShare, Wait, WaitCause
from tests.batching.core_world import small_config, small_request

STEP_S = 1.0
MODEL_S = 0.75


class Clockwork:
    """A scheduler whose steps take one second, the model's part 0.75 s; token 0 is never the end."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.scheduler = Scheduler(config)
        self.now_s = 100.0
        self.records: dict[str, list[SampleRecord]] = {}

    def submit(self, request_id: str, num_tokens: int = 1, **options: object) -> None:
        prompt = [hash_of(request_id)] * num_tokens
        self.scheduler.submit(small_request(request_id, prompt, **options), self.now_s)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            plan = self.scheduler.schedule(self.now_s)
            assert plan is not None
            self.now_s += STEP_S
            sampled = [SampledToken(token_id=0) if row.is_sampling else None for row in plan.sequences]
            output = StepOutput(step_id=plan.step_id, sampled=list(sampled), duration_s=MODEL_S)
            self.take(self.scheduler.commit(output, self.now_s))

    def abort(self, request_id: str) -> None:
        self.take(self.scheduler.abort(request_id, self.now_s))

    def take(self, deltas: list[GenerationDelta]) -> None:
        for delta in deltas:
            assert (delta.record is None) == (delta.finish_reason is None)
            if delta.record is not None:
                self.records.setdefault(delta.request_id, []).append(delta.record)

    def run(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def record(self, request_id: str) -> SampleRecord:
        (record,) = self.records[request_id]
        return record


def hash_of(request_id: str) -> int:
    """Prompts of different requests share no block."""
    return {"a": 0, "b": 1, "c": 2}.get(request_id[0], 0)


def clockwork(**options: object) -> Clockwork:
    return Clockwork(small_config(**{"num_blocks": 100, **options}))  # type: ignore[arg-type]


def test_request_alone_waits_for_nothing_and_shares_nothing() -> None:
    works = clockwork()
    works.submit("a", 3, max_tokens=3)
    works.run()
    record = works.record("a")
    assert record.waits == [Wait(100.0, 100.0, {}, 0)]
    assert record.chunks == [Chunk(100.0, 101.0, 3, 1, 0)]
    assert record.decode == StepShare(2, 2, 0, 2 * MODEL_S)
    assert (record.submitted_s, record.first_token_s, record.finished_s) == (100.0, 101.0, 103.0)
    assert (record.num_prompt_tokens, record.num_output_tokens, record.finish_reason) == (3, 3, FinishReason.LENGTH)


def test_coming_during_a_step_is_a_wait_for_that_step() -> None:
    works = clockwork()
    works.submit("a", max_tokens=4)
    works.step()
    assert works.scheduler.schedule(works.now_s) is not None
    works.now_s += 0.25
    works.submit("b", max_tokens=1)
    works.now_s += 0.75
    works.take(works.scheduler.commit(StepOutput(step_id=1, sampled=[SampledToken(token_id=0)], duration_s=1), 102.0))
    works.run()
    assert works.record("b").waits == [Wait(101.25, 102.0, {WaitCause.STEP: 0.75}, 0)]


def test_full_batch_is_the_cause_until_a_place_is_free() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=5)
    works.submit("b", max_tokens=1)
    works.submit("c", max_tokens=1)
    works.run()
    assert works.record("b").waits == [Wait(100.0, 105.0, {WaitCause.BATCH: 5.0}, 1)]
    assert works.record("c").waits == [Wait(100.0, 106.0, {WaitCause.BATCH: 6.0}, 2)]


def test_token_budget_is_the_cause_while_a_long_prompt_takes_it() -> None:
    works = clockwork(max_num_batched_tokens=4)
    works.submit("a", 12, max_tokens=1)
    works.submit("b", 1, max_tokens=1)
    works.run()
    assert works.record("b").waits == [Wait(100.0, 103.0, {WaitCause.BUDGET: 3.0}, 1)]
    assert [chunk.num_tokens for chunk in works.record("a").chunks] == [4, 4, 4]


def test_exhausted_blocks_are_the_cause_and_their_holders_are_named() -> None:
    works = clockwork(num_blocks=6, max_num_seqs=3)
    works.submit("a", 8, max_tokens=3)
    works.step()
    works.submit("b", 6, max_tokens=1)
    works.run()
    (wait,) = works.record("b").waits
    assert wait.seconds == {WaitCause.BLOCKS: 2.0}
    assert wait.holders == [BlockHolder("a", 5)]


def test_holders_are_looked_for_now_and_then_only() -> None:
    journal = Journal()
    asked = []

    class Running(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            asked.append(1)
            return super().__iter__()

    for _ in range(2 * HOLDERS_EVERY):
        journal.stop_admission(WaitCause.BLOCKS, Running())
    assert len(asked) == 2


def test_preemption_is_told_with_who_needed_the_blocks_and_what_was_lost() -> None:
    works = clockwork(num_blocks=6, max_num_seqs=2)
    works.submit("a", 3, max_tokens=7)
    works.submit("b", 3, max_tokens=5)
    works.run()
    record = works.record("b")
    first, second = record.waits
    assert (first.preempted_by, second.preempted_by) == (None, "a")
    assert second.num_lost_tokens == 6
    assert second.seconds == {WaitCause.BLOCKS: second.ended_s - second.began_s if second.ended_s else 0.0}
    assert record.num_preemptions == 1
    # Two of its seven tokens were found in the prefix cache.
    assert (record.decode.num_steps, [chunk.num_tokens for chunk in record.chunks]) == (3, [3, 5])


def test_prefill_of_others_is_counted_in_the_steps_that_it_slowed() -> None:
    works = clockwork()
    works.submit("a", max_tokens=6)
    works.step(2)
    works.submit("b", 7, max_tokens=1)
    works.run()
    assert works.record("a").decode == StepShare(5, 7, 7, 5 * MODEL_S)
    assert [
        (chunk.num_tokens, chunk.num_rows, chunk.num_other_prefill_tokens) for chunk in works.record("b").chunks
    ] == [
        (4, 2, 0),
        (3, 2, 0),
    ]


def test_who_was_let_in_out_of_turn_is_counted() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=3)
    works.step()
    works.submit("b", max_tokens=1, priority=5)
    works.submit("c", max_tokens=1)
    works.run()
    assert works.record("b").waits[0].num_overtaken_by == 1
    assert works.record("c").waits[0].num_overtaken_by == 0


def test_time_after_a_turn_that_went_to_higher_priority_is_due_to_it() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=3)
    works.step()
    works.submit("b", max_tokens=1, priority=5)
    works.submit("c", max_tokens=4)
    works.run()
    assert works.record("b").waits[0].seconds == {WaitCause.BATCH: 2.0, WaitCause.PRIORITY: 4.0}
    assert works.record("c").waits[0].seconds == {WaitCause.BATCH: 2.0}


def test_time_after_a_turn_that_went_to_another_tenant_is_due_to_the_fair_share() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=4, tenant=Tenant(name="heavy"))
    works.submit("a2", max_tokens=1, tenant=Tenant(name="heavy"))
    works.step()
    works.submit("b", max_tokens=3, tenant=Tenant(name="light"))
    works.run()
    assert works.record("a2").waits[0].seconds == {WaitCause.BATCH: 4.0, WaitCause.SHARE: 3.0}
    assert works.record("b").waits[0].seconds == {WaitCause.BATCH: 3.0}


def test_who_still_waits_has_lost_its_turn_until_now() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=2)
    works.submit("b", max_tokens=1, priority=5)
    works.submit("c", max_tokens=9)
    works.step(4)
    ((record,),) = works.scheduler.journal.so_far({"b"}, works.now_s).values()
    assert record.waits[0].seconds == {WaitCause.BATCH: 2.0, WaitCause.PRIORITY: 2.0}


def test_turn_beyond_memory_is_not_told() -> None:
    works = clockwork(max_num_seqs=1, limits=(24, 10_000, 100_000))
    works.submit("b", max_tokens=1, priority=1_000_000)
    for index in range(NUM_TURNS + 1):
        works.submit(f"a{index}", max_tokens=1)
    works.run()
    (wait,) = works.record("b").waits
    assert set(wait.seconds) == {WaitCause.BATCH}
    assert wait.num_overtaken_by == NUM_TURNS + 1


def test_one_that_returns_after_a_preemption_overtakes_nobody() -> None:
    works = clockwork(num_blocks=6, max_num_seqs=2)
    works.submit("a", 3, max_tokens=7)
    works.submit("b", 3, max_tokens=5)
    works.submit("c", 3, max_tokens=1)
    works.run()
    assert works.record("b").num_preemptions == 1
    assert [wait.num_overtaken_by for wait in works.record("c").waits] == [0]


def test_siblings_wait_for_the_prompt_of_the_first() -> None:
    works = clockwork()
    works.submit("a", 6, max_tokens=2, num_samples=3)
    works.run()
    first, *others = sorted(works.records["a"], key=lambda record: record.sample_index)
    assert [wait.seconds for wait in first.waits] == [{}]
    for record in others:
        assert record.waits[0].seconds == {WaitCause.SIBLING: 1.0}
        assert record.waits[1].began_s == record.waits[0].ended_s == 101.0


def test_request_that_leaves_while_it_waits_has_an_open_wait() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=4)
    works.submit("b", max_tokens=4)
    works.step(2)
    works.abort("b")
    record = works.record("b")
    assert record.waits == [Wait(100.0, None, {WaitCause.BATCH: 2.0}, 1)]
    assert (record.finished_s, record.finish_reason, record.first_token_s) == (102.0, FinishReason.ABORT, None)


def test_live_requests_are_told_as_they_are_now() -> None:
    works = clockwork(max_num_seqs=1)
    works.submit("a", max_tokens=4)
    works.submit("b", max_tokens=4)
    works.step(2)
    told = works.scheduler.journal.so_far({"a", "b"}, works.now_s + 0.5)
    assert set(told) == {"a", "b"}
    ((first,), (second,)) = told["a"], told["b"]
    assert first.decode.num_steps == 1
    assert second.waits[0].seconds == {WaitCause.BATCH: 2.5}
    assert {record.finish_reason for record in (first, second)} == {None}
    assert {record.observed_s for record in (first, second)} == {102.5}
    assert set(works.scheduler.journal.so_far({"b"}, works.now_s)) == {"b"}


def test_chunks_are_bounded_and_all_counted() -> None:
    works = clockwork(max_num_batched_tokens=1, num_blocks=200, limits=(300, 10, 300))
    works.submit("a", MAX_CHUNKS + 10, max_tokens=1)
    works.run()
    record = works.record("a")
    assert (len(record.chunks), record.num_chunks) == (MAX_CHUNKS, MAX_CHUNKS + 10)


@pytest.mark.parametrize("num_requests", [1, 40])
def test_nothing_is_kept_of_what_has_ended(num_requests: int) -> None:
    works = clockwork(limits=(24, 100, 1000))
    for index in range(num_requests):
        works.submit(f"a{index}", 2, max_tokens=2)
    works.run()
    assert works.scheduler.journal.so_far({f"a{index}" for index in range(num_requests)}, works.now_s) == {}
