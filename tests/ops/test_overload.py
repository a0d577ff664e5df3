"""What is called good behaviour under overload, and one overload of a server that refuses everything."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from ops.bench.fake_server import FakeServer
from ops.bench.overload import choose_max_ttft_s, count_from
from ops.bench.overload_probe import OverloadProbe
from ops.bench.overload_verdict import (
    OverloadRecords,
    ProbeRecord,
    Window,
    judge_overload,
    summarize_overload,
)
from service.bench.client import send_stream
from service.bench.connection import ConnectionPool, encode_request, parse_base_url
from service.bench.records import RequestRecord
from service.bench.workload import LengthRange, Target, WorkloadSpec

SPEC = WorkloadSpec(prompt_tokens=LengthRange(4, 4), output_tokens=LengthRange(4, 4))


def succeed(finished_s: float = 5.0) -> RequestRecord:
    return RequestRecord(
        index=0, prompt_len=1, output_len=1, started_s=0.0, first_text_s=0.1, finished_s=finished_s, status=200
    )


def refuse(latency_s: float = 0.005, status: int = 503, retry_after_s: float | None = 2.0) -> RequestRecord:
    return RequestRecord(
        index=0,
        prompt_len=1,
        output_len=1,
        started_s=0.0,
        finished_s=latency_s,
        status=status,
        retry_after_s=retry_after_s,
        error="HTTP 503: queue is full",
    )


def fail() -> RequestRecord:
    return msgspec.structs.replace(succeed(), status=0, error="connection closed")


GOOD = OverloadRecords(
    cpu_s={"engine": 90.0, "loader": 80.0},
    capacity_per_s=10.0,
    offered_per_s=50.0,
    window=Window(start_s=0.0, end_s=10.0),
    unloaded=[succeed()],
    overload=[*(succeed() for _ in range(95)), *(refuse() for _ in range(400))],
    probes=[ProbeRecord(latency_s=0.01)] * 100,
    recovery_s=2.0,
)


def find_misses(records: OverloadRecords) -> list[str]:
    return [check.name for check in judge_overload(summarize_overload(records)) if not check.is_ok]


def test_good_server_misses_nothing() -> None:
    assert find_misses(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "misses"),
    [
        ({"overload": [*GOOD.overload[8:]]}, ["goodput of capacity"]),
        ({"overload": GOOD.overload[:95]}, ["refused with 429 or 503", "refusal p99"]),
        ({"overload": [*GOOD.overload, refuse(retry_after_s=None)]}, ["refusals without Retry-After"]),
        ({"overload": [*GOOD.overload, refuse(retry_after_s=121.0)]}, ["longest Retry-After"]),
        ({"overload": [*GOOD.overload, fail()]}, ["failed otherwise"]),
        ({"overload": [*GOOD.overload, *[refuse(latency_s=0.5)] * 40]}, ["refusal p99"]),
        ({"probes": [ProbeRecord(latency_s=0.2)] * 100}, ["/health p99"]),
        ({"probes": [*GOOD.probes, ProbeRecord(latency_s=5.0, error="TimeoutError")]}, ["/health unanswered"]),
        ({"recovery_s": 11.0}, ["recovery"]),
        ({"recovery_s": None}, ["recovery"]),
    ],
)
def test_each_failing_is_its_own_miss(changes: dict[str, object], misses: list[str]) -> None:
    assert find_misses(msgspec.structs.replace(GOOD, **changes)) == misses


def test_requests_are_counted_by_their_end() -> None:
    figures = summarize_overload(
        msgspec.structs.replace(GOOD, overload=[succeed(9.9), succeed(10.0), refuse(status=429), refuse(), fail()])
    )
    assert figures.goodput_per_s == pytest.approx(0.1)
    assert (figures.num_succeeded, figures.num_refused, figures.num_failed) == (2, {429: 1, 503: 1}, 1)


def test_start_of_a_level_is_not_counted() -> None:
    assert count_from(100.0, 10.0) == Window(start_s=102.0, end_s=110.0)


def test_recovered_is_a_few_times_the_unloaded_time() -> None:
    slow = msgspec.structs.replace(succeed(), first_text_s=1.0)
    assert choose_max_ttft_s([slow]) == pytest.approx(5.0)
    assert choose_max_ttft_s([succeed()]) == choose_max_ttft_s([]) == 0.5


async def send(model: str) -> RequestRecord:
    server = FakeServer()
    base_url = await server.start()
    pool = ConnectionPool(parse_base_url(base_url))
    record = RequestRecord(index=0, prompt_len=1, output_len=2, started_s=time.monotonic())
    body = msgspec.json.encode({"model": model, "max_tokens": 2})
    await send_stream(pool, encode_request(pool.address, "POST", "/completions", body), record, 10.0)
    pool.close()
    await server.close()
    return record


async def test_record_has_the_status_and_the_wait_of_a_refusal() -> None:
    record = await send("refuse")
    assert (record.status, record.retry_after_s) == (503, 3.0)
    assert (await send("fake")).status == 200
    assert (await send("fake")).retry_after_s is None


async def run_probe(model: str, max_wait_s: float = 30.0) -> OverloadProbe:
    """A probe of a fake server whose load ended long ago."""
    server = FakeServer()
    target = Target(name="fake", base_url=await server.start(), model=model)
    probe = OverloadProbe(target, SPEC, max_ttft_s=30.0, max_wait_s=max_wait_s)
    probe.start(time.monotonic())
    await asyncio.to_thread(probe.join)
    await server.close()
    return probe


async def test_probe_sees_health_and_recovery() -> None:
    probe = await run_probe("fake")
    assert probe.recovery_s is not None
    assert probe.probes
    assert [record.error for record in probe.probes if record.error is not None] == []


async def test_probe_gives_up_on_a_server_that_refuses() -> None:
    assert (await run_probe("refuse", max_wait_s=0.5)).recovery_s is None
