"""The load generator against a fake server on the loopback: success, refusals, broken streams, both loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from ops.bench.fake_server import FakeServer
from service.bench.client import fetch_first_model
from service.bench.connection import ExchangeFailed, parse_base_url
from service.bench.records import RequestRecord
from service.bench.runner import Level, Share, run_share
from service.bench.workload import LengthRange, Target, WorkloadSpec, draw_lengths

SPEC = WorkloadSpec(prompt_tokens=LengthRange(4, 16), output_tokens=LengthRange(4, 12), vocab_size=500)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A fake server that stops with the test."""
    fake = FakeServer()
    yield fake
    await fake.close()


async def load(server: FakeServer, level: Level, **target_fields: object) -> list[RequestRecord]:
    """Run one level against the fake."""
    target = Target(name="fake", base_url=await server.start(), model="fake")
    share = Share(
        target=msgspec.structs.replace(target, **target_fields),
        spec=SPEC,
        level=level,
        label="test",
        start_at_s=time.monotonic(),
        timeout_s=5.0,
    )
    return (await run_share(share)).records


async def test_closed_loop_runs_every_request_once(server: FakeServer) -> None:
    """With the planned lengths, tokens by usage, and times in order."""
    records = await load(server, Level(num_clients=4, num_requests=20))
    assert sorted(record.index for record in records) == list(range(20))
    assert [record.error for record in records] == [None] * 20
    assert all(record.completion_tokens == record.output_len == record.num_text_events for record in records)
    assert all(record.prompt_tokens == record.prompt_len for record in records)
    times = [(r.started_s, r.first_text_s or 0.0, r.last_text_s or 0.0, r.finished_s) for r in records]
    assert times == [tuple(sorted(moments)) for moments in times]


async def test_gaps_are_counted_between_reads_that_brought_text(server: FakeServer) -> None:
    """They span the time from first to last text."""
    record = (await load(server, Level(num_requests=1)))[0]
    assert record.first_text_s is not None
    assert record.last_text_s is not None
    assert sum(record.gaps_s) == pytest.approx(record.last_text_s - record.first_text_s)
    assert len(record.gaps_s) < record.num_text_events


def test_shares_of_two_processes_cover_the_level() -> None:
    """Indexes and clients are dealt out in turns."""
    shares = [
        Share(
            target=Target(name="a", base_url="http://x/v1", model="m"),
            spec=SPEC,
            level=Level(num_clients=5, num_requests=7),
            label="test",
            start_at_s=0.0,
            timeout_s=1.0,
            first=first,
            stride=2,
        )
        for first in range(2)
    ]
    assert [share.num_clients for share in shares] == [3, 2]


async def test_open_loop_starts_requests_when_they_are_due(server: FakeServer) -> None:
    """Latency counts from the time due, which no slow answer can shift."""
    records = await load(server, Level(rate_per_s=500.0, num_requests=30))
    due_s = [record.started_s for record in records]
    assert len(due_s) == 30
    assert due_s == sorted(due_s)
    assert {record.error for record in records} == {None}


async def test_duration_ends_a_level(server: FakeServer) -> None:
    """Requests in flight are waited for."""
    records = await load(server, Level(num_clients=2, duration_s=0.1))
    assert records
    assert max(record.started_s for record in records) - records[0].started_s < 0.1
    assert {record.error for record in records} == {None}


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("refuse", "HTTP 503: queue is full"),
        ("error-midway", "error in the stream: the engine failed"),
        ("cut-midway", "connection closed before the reply ended"),
    ],
)
async def test_failures_are_told_in_the_servers_words(server: FakeServer, model: str, error: str) -> None:
    """Every request ends, and the next one gets a working connection."""
    records = await load(server, Level(num_clients=2, num_requests=6), model=model)
    assert [record.error for record in records] == [error] * 6
    assert all(record.finished_s >= record.started_s for record in records)


async def test_silent_server_is_given_up(server: FakeServer) -> None:
    """After the time limit, with its value in the message."""
    target = Target(name="fake", base_url=await server.start(), model="silent")
    share = Share(target=target, spec=SPEC, level=Level(num_requests=1), label="test", start_at_s=0.0, timeout_s=0.05)
    assert [record.error for record in (await run_share(share)).records] == ["no complete reply within 0.05 s"]


async def test_missing_server_fails_each_request() -> None:
    """Rather than the whole run."""
    target = Target(name="none", base_url="http://127.0.0.1:1/v1", model="m")
    share = Share(target=target, spec=SPEC, level=Level(num_requests=2), label="test", start_at_s=0.0, timeout_s=1.0)
    errors = [record.error for record in (await run_share(share)).records]
    assert len(errors) == 2
    assert all(error is not None and "127.0.0.1" in error for error in errors)


async def test_stream_without_usage_counts_events(server: FakeServer) -> None:
    """The record keeps that the server did not count."""
    record = (await load(server, Level(num_requests=1), model="no-usage"))[0]
    assert record.completion_tokens is None
    assert record.num_output_tokens == record.num_text_events == record.output_len


async def test_early_stop_shows_as_a_short_answer(server: FakeServer) -> None:
    """One token and no error."""
    record = (await load(server, Level(num_requests=1), model="one-token"))[0]
    assert (record.error, record.num_output_tokens) == (None, 1)
    assert record.tpot_s is None


async def test_connection_closed_while_idle_is_replaced(server: FakeServer) -> None:
    """A kept connection that the server closes between requests costs no failure."""
    base_url = await server.start()

    async def close_after_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", parse_base_url(base_url).port)
        asked = await reader.read(65536)
        if asked.startswith(b"GET "):  # for the health, which this one has not
            asked = b""
            writer.close()
        upstream_writer.write(asked)
        reply = b"" if asked else b"0\r\n\r\n"
        while not reply.endswith(b"0\r\n\r\n"):
            reply += await upstream_reader.read(65536)
        writer.write(reply)
        writer.close()
        upstream_writer.close()

    proxy = await asyncio.start_server(close_after_one, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    target = Target(name="proxy", base_url=f"http://127.0.0.1:{port}/v1", model="fake")
    share = Share(target=target, spec=SPEC, level=Level(num_requests=5), label="t", start_at_s=0.0, timeout_s=5.0)
    assert [record.error for record in (await run_share(share)).records] == [None] * 5
    proxy.close()


async def test_requests_reach_the_server_as_planned(server: FakeServer) -> None:
    """Lengths are those of the workload; the prompts are ids."""
    await load(server, Level(num_requests=3))
    assert [(len(r.prompt), r.max_tokens) for r in server.requests] == [draw_lengths(SPEC, i) for i in range(3)]


async def test_first_listed_model_is_found(server: FakeServer) -> None:
    """The default of --model."""
    assert await fetch_first_model(await server.start()) == "fake"


async def test_model_list_of_a_wrong_path_is_an_error_with_the_url() -> None:
    """Whoever typed the URL must see it."""
    with pytest.raises(OSError, match="1"):
        await fetch_first_model("http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "is_tls"),
    [
        ("http://127.0.0.1:8000/v1/", "127.0.0.1", 8000, "/v1", False),
        ("https://example.org/api/v1", "example.org", 443, "/api/v1", True),
        ("http://[::1]:9/v1", "::1", 9, "/v1", False),
    ],
)
def test_base_url_is_split(url: str, host: str, port: int, path: str, is_tls: bool) -> None:
    """Port and scheme have their defaults."""
    address = parse_base_url(url)
    assert (address.host, address.port, address.path, address.is_tls) == (host, port, path, is_tls)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/v1", "http:///v1"])
def test_other_urls_are_refused_with_an_example(url: str) -> None:
    """The message shows what a base URL looks like."""
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:8000/v1"):
        parse_base_url(url)


def test_failed_exchange_is_not_retriable_by_default() -> None:
    """A request that may have run is not sent twice."""
    assert not ExchangeFailed("x").is_retriable
