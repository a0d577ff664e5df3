"""Records and events of a request live together, and those that wait know their place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from batching import record_ring
from batching.request_book import RequestBook
from contracts.errors import EventsGone, RequestNotFound
from contracts.followed import EventSlice
from contracts.generation import FinishReason, GenerationDelta, Tenant
from contracts.records import RecordQuery
from tests.batching.core_world import small_request
from tests.batching.engine_rig import Rig, in_process, over_socket
from tests.batching.test_record_ring import sample


def final(request_id: str) -> GenerationDelta:
    return GenerationDelta(
        request_id=request_id, sample_index=0, token_ids=[], finish_reason=FinishReason.STOP, record=sample()
    )


def begun(*request_ids: str, **options: object) -> RequestBook:
    book = RequestBook()
    for request_id in request_ids:
        book.begin(small_request(request_id, [0], **options))
    return book


def test_events_have_no_record_which_others_keep() -> None:
    book = begun("a")
    book.note([final("a")])
    part = book.read("a", None, 0)
    assert part.deltas == [msgspec.structs.replace(final("a"), record=None)]
    assert part.is_over


def test_events_end_with_their_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_ring, "MAX_RECORDS", 2)
    book = begun("a", "b", "c")
    for request_id in ("a", "b", "c"):
        book.note([final(request_id)])
    assert len(book.events) == 2
    with pytest.raises(RequestNotFound):
        book.read("a", None, 0)
    assert book.read("c", None, 0).is_over


def test_events_may_end_before_their_record() -> None:
    book = begun("a")
    book.events.forget("a")
    with pytest.raises(EventsGone):
        book.read("a", None, 0)


@pytest.mark.parametrize("tenant", ["one", None])
def test_events_are_read_by_their_owner(tenant: str | None) -> None:
    assert begun("a", tenant=Tenant(name="one")).read("a", tenant, 0) == EventSlice([], is_over=False)


@pytest.mark.parametrize(("request_id", "tenant"), [("a", "two"), ("a", ""), ("b", "one"), ("b", None)])
def test_events_of_others_are_as_those_of_nobody(request_id: str, tenant: str | None) -> None:
    with pytest.raises(RequestNotFound):
        begun("a", tenant=Tenant(name="one")).read(request_id, tenant, 0)


def test_id_in_use_again_is_not_forgotten_with_its_former_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_ring, "MAX_RECORDS", 1)
    book = begun("a")
    book.note([final("a")])
    book.begin(small_request("a", [0]))
    book.begin(small_request("b", [0]))
    book.note([final("b")])
    assert not book.read("a", None, 0).is_over


@pytest.mark.parametrize("any_id", ["cmpl-1", "cmpl-1-0", "cmpl-1-1"])
def test_reply_with_several_prompts_is_found_by_its_id(any_id: str) -> None:
    book = begun("cmpl-1-0", "cmpl-1-1", "cmpl-12-0", "cmpl-1-x")
    for request_id in ("cmpl-1-0", "cmpl-1-1", "cmpl-12-0", "cmpl-1-x"):
        book.note([final(request_id)])
    found = book.records.find(RecordQuery(any_id=any_id), lambda ids: {})
    expected = {"cmpl-1-0", "cmpl-1-1"} if any_id == "cmpl-1" else {any_id}
    assert {record.request_id for record in found} == expected


@pytest.mark.parametrize("is_remote", [False, True])
async def test_those_that_wait_know_their_place(is_remote: bool, tmp_path: Path) -> None:
    async with over_socket(tmp_path / "s") if is_remote else in_process() as rig:
        await rig.submit_and_hold("running")
        waiting = [
            small_request("a", [0]),
            small_request("b", [0], num_samples=3),
            small_request("c", [0]),
            small_request("urgent", [0], priority=-5),
        ]
        for request in waiting:
            await rig.front.submit(request)
        assert await places(rig) == {"running": None, "urgent": 0, "a": 1, "b": 2, "c": 3}
        rig.front.abort("a")
        assert await places(rig) == {"running": None, "urgent": 0, "a": None, "b": 1, "c": 2}
        rig.runner.gate.set()


async def places(rig: Rig) -> dict[str, int | None]:
    return {record.request_id: record.queue_position for record in await rig.front.records(RecordQuery())}
