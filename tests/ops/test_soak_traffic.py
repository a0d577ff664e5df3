"""What a soak asks: the same every time, in the shares that it promises, and invalid where it says so."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from ops.soak.clients import Answered, Ending, StreamCheck, WrongAnswer, judge_answer
from ops.soak.traffic import AbortPhase, Kind, SoakRequest, plan_soak_request

REQUESTS = [plan_soak_request(0, index, "m", 4000) for index in range(4000)]
VALID = [request for request in REQUESTS if request.kind is not Kind.INVALID]
CHOICE = b'data: {"choices":[{"index":0,"text":"a","finish_reason":%b}]}\n\n'
OPEN, ENDED, DONE = CHOICE % b"null", CHOICE % b'"stop"', b"data: [DONE]\n\n"


def test_request_depends_on_seed_and_index_alone() -> None:
    assert plan_soak_request(0, 7, "m", 4000) == REQUESTS[7]
    assert plan_soak_request(1, 7, "m", 4000) != REQUESTS[7]


def test_one_in_twenty_is_invalid() -> None:
    assert 0.04 < 1 - len(VALID) / len(REQUESTS) < 0.06


def test_one_valid_request_in_five_is_given_up() -> None:
    assert 0.18 < sum(request.abort is not None for request in VALID) / len(VALID) < 0.22


def test_every_kind_and_every_phase_occurs() -> None:
    assert set(Counter(request.kind for request in REQUESTS)) == set(Kind)
    assert {request.abort.phase for request in VALID if request.abort is not None} == set(AbortPhase)


def test_valid_bodies_are_json_that_names_the_model() -> None:
    assert {msgspec.json.decode(request.body)["model"] for request in VALID} == {"m"}


def stream_request(num_samples: int = 1) -> SoakRequest:
    return SoakRequest(index=0, kind=Kind.SHORT_STREAM, path="/completions", body=b"{}", num_samples=num_samples)


def test_whole_stream_passes() -> None:
    check = StreamCheck(2)
    check.feed(OPEN + ENDED)
    check.feed(ENDED + DONE)
    check.close()
    assert check.num_events == 4


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (OPEN + DONE, "1 samples open"),
        (ENDED, r"\[DONE\]: False"),
        (ENDED + ENDED + DONE, "-1 samples open"),
        (ENDED + DONE + OPEN, "after"),
        (b'data: {"error":{"message":"the engine failed"}}\n\n', "the engine failed"),
        (b"data: {\n\n", "no event"),
    ],
)
def test_broken_stream_is_wrong(sent: bytes, complaint: str) -> None:
    check = StreamCheck(1)
    with pytest.raises(WrongAnswer, match=complaint):
        feed_and_close(check, sent)


def feed_and_close(check: StreamCheck, sent: bytes) -> None:
    check.feed(sent)
    check.close()


@pytest.mark.parametrize(
    ("kind", "status", "body", "ending"),
    [
        (Kind.SHORT_STREAM, 200, b"", Ending.FINISHED),
        (Kind.SHORT_STREAM, 503, b"", Ending.REFUSED),
        (Kind.SHORT_STREAM, 429, b"", Ending.REFUSED),
        (Kind.INVALID, 400, b'{"error":{}}', Ending.REJECTED),
        (Kind.INVALID, 404, b'{"error":{}}', Ending.REJECTED),
    ],
)
def test_ending_follows_from_the_status(kind: Kind, status: int, body: bytes, ending: Ending) -> None:
    request = msgspec.structs.replace(stream_request(), kind=kind)
    assert judge_answer(request, Answered(status=status, body=body)) is ending


@pytest.mark.parametrize(
    ("kind", "is_streamed", "status", "body"),
    [
        (Kind.INVALID, False, 200, b'{"choices":[]}'),
        (Kind.INVALID, False, 500, b'{"error":{}}'),
        (Kind.INVALID, False, 400, b"Bad Request"),
        (Kind.SHORT_STREAM, True, 500, b'{"error":{}}'),
        (Kind.SHORT_STREAM, True, 400, b'{"error":{}}'),
        (Kind.CHAT_ONCE, False, 200, b"{}"),
    ],
)
def test_answer_that_does_not_fit_is_wrong(kind: Kind, is_streamed: bool, status: int, body: bytes) -> None:
    request = msgspec.structs.replace(stream_request(), kind=kind, is_streamed=is_streamed)
    with pytest.raises(WrongAnswer):
        judge_answer(request, Answered(status=status, body=body))
