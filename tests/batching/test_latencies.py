"""Every sample that ends is counted once in each histogram that it reached."""

from __future__ import annotations

import pytest

from batching.latencies import SECONDS, Buckets, LatencyBook
from contracts.finish_reason import FinishReason
from contracts.records import Wait, WaitCause
from tests.service.test_why import sample


@pytest.mark.parametrize(("value", "index"), [(0.0, 0), (0.001, 0), (0.0011, 1), (100.0, 15), (100.1, 16)])
def test_value_counts_in_the_first_bucket_that_it_does_not_exceed(value: float, index: int) -> None:
    buckets = Buckets(SECONDS)
    buckets.observe(value, 3)
    histogram = buckets.snapshot()
    assert [place for place, count in enumerate(histogram.counts) if count] == [index]
    assert histogram.counts[index] == 3
    assert histogram.sum == pytest.approx(3 * value)
    assert len(histogram.counts) == len(histogram.bounds) + 1


def test_phases_of_a_sample_are_counted_once_each() -> None:
    book = LatencyBook()
    book.end(sample())
    told = book.snapshot()
    sums = {
        "queue_s": 2.0,
        "prefill_s": 0.3,
        "time_to_first_token_s": 2.3,
        "decode_s": 1.0,
        "request_s": 3.3,
        "prompt_tokens": 856.0,
        "output_tokens": 11.0,
    }
    for name, value in sums.items():
        histogram = getattr(told, name)
        assert sum(histogram.counts) == 1, name
        assert histogram.sum == pytest.approx(value), name
    assert told.ends == {"length": 1}


def test_sample_that_never_ran_is_counted_as_a_whole_only() -> None:
    book = LatencyBook()
    left = Wait(50.0, None, {WaitCause.BATCH: 3.3}, 0)
    book.end(sample(waits=[left], chunks=[], first_token_s=None, finish_reason=FinishReason.ABORT))
    told = book.snapshot()
    assert [sum(one.counts) for one in (told.queue_s, told.prefill_s, told.time_to_first_token_s, told.decode_s)] == [
        0
    ] * 4
    assert (sum(told.request_s.counts), told.ends) == (1, {"abort": 1})


def test_wait_for_a_sibling_is_part_of_the_queue() -> None:
    book = LatencyBook()
    waits = [Wait(50.0, 51.0, {WaitCause.SIBLING: 1.0}, 0), Wait(51.0, 51.5, {WaitCause.STEP: 0.5}, 0)]
    book.end(sample(waits=waits, num_waits=2))
    assert book.snapshot().queue_s.sum == pytest.approx(1.5)


def test_step_counts_a_gap_for_each_sequence_that_decoded() -> None:
    book = LatencyBook()
    book.decode_step(0.02, 5)
    book.decode_step(7.0, 0)
    told = book.snapshot().inter_token_s
    assert sum(told.counts) == 5
    assert told.sum == pytest.approx(0.1)
