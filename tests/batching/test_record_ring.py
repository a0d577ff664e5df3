"""The last requests are remembered, found by any of their ids, and told to their owner."""

from __future__ import annotations

from collections.abc import Set

import pytest

from batching.record_ring import MAX_RECORDS, RecordRing
from contracts.generation import FinishReason, GenerationRequest, Tenant
from contracts.records import MAX_ANSWERED, RecordQuery, RequestRecord, SampleRecord, StepShare
from tests.batching.core_world import small_request

TRACE = "0af7651916cd43dd8448eb211c80319c"


def sample(index: int = 0, submitted_s: float = 1.0, finished_s: float | None = 2.0) -> SampleRecord:
    return SampleRecord(
        sample_index=index,
        submitted_s=submitted_s,
        waits=[],
        chunks=[],
        num_waits=0,
        num_chunks=0,
        decode=StepShare(),
        num_prompt_tokens=1,
        num_cached_tokens=0,
        num_output_tokens=1,
        num_preemptions=0,
        observed_s=9.0 if finished_s is None else finished_s,
        finished_s=finished_s,
        finish_reason=None if finished_s is None else FinishReason.STOP,
    )


def asked(request_id: str, **options: object) -> GenerationRequest:
    return small_request(request_id, [0], **options)


def ids(records: list[RequestRecord]) -> list[str]:
    return [record.request_id for record in records]


@pytest.fixture
def ring() -> RecordRing:
    """a of one tenant has ended, b of another lives with one of two samples ended."""
    ring = RecordRing()
    ring.begin(asked("a", tenant=Tenant(name="one"), client_request_id="req_1", traceparent=f"00-{TRACE}-00f067aa-01"))
    ring.end("a", sample())
    ring.begin(asked("b", tenant=Tenant(name="two"), num_samples=2))
    ring.end("b", sample(0, submitted_s=1.5))
    return ring


def live(request_ids: Set[str]) -> dict[str, list[SampleRecord]]:
    """Sample 1 of b runs."""
    return {"b": [sample(1, submitted_s=1.5, finished_s=None)]} if "b" in request_ids else {}


def nothing(request_ids: Set[str]) -> dict[str, list[SampleRecord]]:
    return {}


@pytest.mark.parametrize("any_id", ["a", "req_1", TRACE])
def test_any_id_finds_it(ring: RecordRing, any_id: str) -> None:
    (found,) = ring.find(RecordQuery(any_id=any_id), live)
    assert (found.request_id, found.tenant) == ("a", "one")


def test_live_ones_are_told_with_all_their_samples(ring: RecordRing) -> None:
    (found,) = ring.find(RecordQuery(any_id="b"), live)
    assert [one.sample_index for one in found.samples] == [0, 1]
    assert not found.is_finished
    (again,) = ring.find(RecordQuery(any_id="b"), live)
    assert again == found


def test_order_is_newest_or_slowest_first(ring: RecordRing) -> None:
    ring.begin(asked("c"))
    ring.end("c", sample(submitted_s=1.2, finished_s=30.0))
    assert ids(ring.find(RecordQuery(), live)) == ["b", "c", "a"]
    assert ids(ring.find(RecordQuery(is_slowest_first=True), live)) == ["c", "b", "a"]
    assert ids(ring.find(RecordQuery(limit=1), live)) == ["b"]


def test_next_page_begins_where_the_last_one_ended(ring: RecordRing) -> None:
    assert ids(ring.find(RecordQuery(latest_submitted_s=1.5), live)) == ["b", "a"]
    assert ids(ring.find(RecordQuery(latest_submitted_s=1.4), live)) == ["a"]
    assert ids(ring.find(RecordQuery(latest_submitted_s=0.5), live)) == []


def test_others_of_another_tenant_are_not_told(ring: RecordRing) -> None:
    assert ids(ring.find(RecordQuery(tenant="one"), live)) == ["a"]
    assert ring.find(RecordQuery(tenant="one", any_id="b"), live) == []
    assert ring.find(RecordQuery(tenant=""), live) == []


@pytest.mark.parametrize(
    ("query", "asked_for"),
    [
        (RecordQuery(), {"b"}),
        (RecordQuery(any_id="a"), set()),
        (RecordQuery(any_id="b"), {"b"}),
        (RecordQuery(tenant="one"), set()),
    ],
)
def test_only_what_is_meant_is_asked_of_the_engine(ring: RecordRing, query: RecordQuery, asked_for: set[str]) -> None:
    asked_of: list[Set[str]] = []

    def note(request_ids: Set[str]) -> dict[str, list[SampleRecord]]:
        asked_of.append(request_ids)
        return {}

    ring.find(query, note)
    assert asked_of == [asked_for]


def test_request_of_which_nothing_is_known_yet_is_not_told() -> None:
    ring = RecordRing()
    ring.begin(asked("a"))
    assert ring.find(RecordQuery(), nothing) == []


def test_ring_is_bounded_and_so_is_an_answer() -> None:
    ring = RecordRing()
    for index in range(MAX_RECORDS + 5):
        ring.begin(asked(str(index)))
        ring.end(str(index), sample(submitted_s=float(index), finished_s=index + 1.0))
    assert len(ring.find(RecordQuery(limit=10**9), nothing)) == MAX_ANSWERED
    assert ring.find(RecordQuery(any_id="4"), nothing) == []
    assert ids(ring.find(RecordQuery(any_id="5"), nothing)) == ["5"]


def test_end_of_what_never_began_is_ignored() -> None:
    ring = RecordRing()
    ring.end("a", sample())
    assert ring.find(RecordQuery(), nothing) == []
