"""The event log against a plain list: it tells what it has unchanged, in order, in parts, within its bound."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.event_log import LOG_BYTES, MAX_LOG_BYTES, ODD_BYTES, TOKEN_BYTES, EventLog
from contracts.followed import MAX_SLICE_DELTAS
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, PhaseTimes, TokenLogprob
from tests.batching.core_world import small_request

deltas = st.builds(
    GenerationDelta,
    request_id=st.sampled_from(["a", "b"]),
    sample_index=st.integers(0, 2),
    token_ids=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=1) | st.lists(st.integers(0, 9), max_size=3),
    logprobs=st.none() | st.just([TokenLogprob(logprob=-0.5, top=[(1, -0.5), (2, float("-inf"))])]),
    num_cached_tokens=st.sampled_from([0, 0, 0, 16]),
)


def request(request_id: str = "a", num_samples: int = 1) -> GenerationRequest:
    return small_request(request_id, [0], num_samples=num_samples)


def token(token_id: int, request_id: str = "a", sample_index: int = 0) -> GenerationDelta:
    return GenerationDelta(request_id=request_id, sample_index=sample_index, token_ids=[token_id])


def end(request_id: str = "a", sample_index: int = 0) -> GenerationDelta:
    return GenerationDelta(
        request_id=request_id,
        sample_index=sample_index,
        token_ids=[7],
        finish_reason=FinishReason.STOP,
        ended_by_token=True,
        times=PhaseTimes(submitted_s=1.0),
    )


def told(log: EventLog, request_id: str, after: int = 0) -> Iterator[GenerationDelta]:
    """Everything behind `after`, part by part."""
    while (part := log.read(request_id, after)) is not None and part.deltas:
        yield from part.deltas
        after += len(part.deltas)


@given(given_deltas=st.lists(deltas, max_size=30), after=st.integers(0, 35), ended=st.sets(st.sampled_from("ab")))
def test_log_tells_what_a_list_would(given_deltas: list[GenerationDelta], after: int, ended: set[str]) -> None:
    log = EventLog()
    log.begin(request("a", 1))
    log.begin(request("b", 1))
    model = {"a": [one for one in given_deltas if one.request_id == "a"]}
    model["b"] = [one for one in given_deltas if one.request_id == "b"]
    for one in given_deltas:
        log.append(one)
    for request_id in sorted(ended):
        log.append(end(request_id))
        model[request_id].append(end(request_id))
    for request_id, expected in model.items():
        assert list(told(log, request_id, after)) == expected[after:]
        part = log.read(request_id, after)
        assert part is not None
        assert part.is_over == (request_id in ended)


def test_parts_are_bounded_and_the_last_says_so() -> None:
    log = EventLog()
    log.begin(request())
    expected = [token(number) for number in range(2 * MAX_SLICE_DELTAS - 1)]
    for one in expected:
        log.append(one)
    log.append(end())
    first, last = log.read("a", 0), log.read("a", MAX_SLICE_DELTAS)
    assert first is not None
    assert last is not None
    assert first.deltas + last.deltas == [*expected, end()]
    assert (first.is_over, last.is_over) == (False, True)


def test_request_ends_with_its_last_sample() -> None:
    log = EventLog()
    log.begin(request(num_samples=2))
    log.append(end(sample_index=1))
    part = log.read("a", 0)
    assert part is not None
    assert not part.is_over
    log.append(end(sample_index=0))
    part = log.read("a", 2)
    assert part is not None
    assert part.is_over


@pytest.mark.parametrize("num_others", [0, 3])
def test_ended_logs_are_given_up_the_oldest_first(num_others: int) -> None:
    size = LOG_BYTES + 10 * TOKEN_BYTES + ODD_BYTES + len(msgspec.msgpack.encode(end()))
    log = EventLog(max_bytes=3 * size)
    for request_id in map(str, range(3 + num_others)):
        log.begin(request(request_id))
        for number in range(10):
            log.append(token(number, request_id))
        log.append(end(request_id))
    assert [log.read(str(number), 0) is None for number in range(3 + num_others)] == [True] * num_others + [False] * 3
    assert log.num_bytes <= 3 * size


def test_live_log_is_given_up_only_when_nothing_else_is_left() -> None:
    log = EventLog(max_bytes=2 * LOG_BYTES + ODD_BYTES + 200 + 100 * TOKEN_BYTES)
    log.begin(request("ended"))
    log.append(end("ended"))
    log.begin(request("live"))
    for number in range(200):
        log.append(token(number, "live"))
    assert log.read("ended", 0) is None
    assert list(told(log, "live")) == [token(number, "live") for number in range(200)]
    for number in range(1000):
        log.append(token(number, "live"))
    assert log.read("live", 0) is None
    assert (log.num_bytes, len(log)) == (0, 0)


def test_id_that_is_used_again_begins_anew() -> None:
    log = EventLog()
    log.begin(request())
    log.append(end())
    log.begin(request())
    log.append(token(3))
    assert list(told(log, "a")) == [token(3)]
    log.forget("a")
    log.forget("a")
    assert (log.read("a", 0), log.num_bytes) == (None, 0)


def test_delta_of_what_has_no_log_is_dropped() -> None:
    log = EventLog()
    log.append(token(1))
    assert log.read("a", 0) is None


def test_million_tokens_fit_and_make_no_work_for_the_garbage_collector() -> None:
    log = EventLog()
    log.begin(request())
    num_objects = len(gc.get_objects())
    for number in range(100_000):
        log.append(token(number))
    assert len(gc.get_objects()) - num_objects < 100
    assert 1_000_000 * TOKEN_BYTES < MAX_LOG_BYTES
