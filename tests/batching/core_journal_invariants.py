"""What holds of every record, whatever the history: its parts are in order, do not overlap, and add up."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from contracts.records import MAX_CHUNKS, MAX_WAITS, SampleRecord, Wait

if TYPE_CHECKING:
    from tests.batching.core_world import SampleLog, World

TOLERANCE_S = 1e-6
"""Sums of many floats."""


def i21_record_adds_up(world: World, log: SampleLog, record: SampleRecord) -> None:
    """The record of a sample that has just ended."""
    sequence = log.sequence
    assert (record.submitted_s, record.finished_s, record.observed_s) == (log.submitted_s, world.now_s, world.now_s)
    assert record.num_preemptions == sequence.num_preemptions
    assert record.num_prompt_tokens == len(log.request.prompt_token_ids)
    waits_are_in_order(record)
    for wait in record.waits:
        end_s = world.now_s if wait.ended_s is None else wait.ended_s
        assert abs(sum(wait.seconds.values()) - (end_s - wait.began_s)) < TOLERANCE_S, wait
        assert all(seconds > 0.0 for seconds in wait.seconds.values())
    if record.num_waits <= MAX_WAITS:
        preempted = [wait for wait in record.waits if wait.preempted_by is not None]
        assert len(preempted) == sequence.num_preemptions
        assert all(wait.num_lost_tokens > 0 for wait in preempted)
    if record.num_chunks <= MAX_CHUNKS:
        lost = sum(wait.num_lost_tokens for wait in record.waits)
        num_prefilled = sum(chunk.num_tokens for chunk in record.chunks)
        assert num_prefilled <= sequence.num_tokens + lost
    assert record.decode.num_rows >= record.decode.num_steps
    assert record.decode.num_steps <= sequence.num_output_tokens


def waits_are_in_order(record: SampleRecord) -> None:
    """Only the last may be open; a chunk lies in no wait."""
    for earlier, later in pairwise(record.waits):
        assert earlier.ended_s is not None
        assert earlier.ended_s <= later.began_s
    assert all(not overlaps(wait, chunk.began_s, chunk.ended_s) for wait in record.waits for chunk in record.chunks)


def overlaps(wait: Wait, began_s: float, ended_s: float) -> bool:
    return wait.ended_s is not None and max(wait.began_s, began_s) < min(wait.ended_s, ended_s)
