"""Sockets against a real server: sizes, reuse of connections, pipelines, slow readers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contracts.settings import ServerSettings
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server

LIMIT_BYTES = 100_000
TEXT = "abcdefghijklmnopqrst"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    settings = ServerSettings(max_body_bytes=LIMIT_BYTES)
    with running_server(FakeServerOptions(num_tokens=20, server=settings, tokens_per_delta=4)) as server:
        yield server


def raw_request(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def chat_body(**extra: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "a"}], **extra}).encode()


def test_body_over_the_limit_is_413_and_the_server_goes_on(server: FakeServer) -> None:
    body = chat_body(user="x" * LIMIT_BYTES)
    reply = httpx.post(f"{server.url}/v1/chat/completions", content=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert server.health()["status"] == "healthy"


def test_body_over_the_limit_in_chunks_is_413(server: FakeServer) -> None:
    reply = httpx.post(f"{server.url}/v1/chat/completions", content=iter([b" " * 10_000] * 20))
    assert reply.status_code == 413


def test_one_connection_serves_json_streams_and_errors_in_turn(server: FakeServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        replies = [
            client.post("/v1/chat/completions", content=chat_body(**extra))
            for extra in ({}, {"stream": True}, {"n": 99}, {"stream": True}, {})
        ]
    assert [reply.status_code for reply in replies] == [200, 200, 400, 200, 200]
    assert replies[3].text.endswith("data: [DONE]\n\n")
    assert replies[4].json()["choices"][0]["message"]["content"] == TEXT


def test_pipelined_requests_are_answered_in_order(server: FakeServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(
            raw_request(chat_body(), "x-request-id: first")
            + raw_request(chat_body(), "x-request-id: second", "connection: close")
        )
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.index(b"x-request-id: first") < received.index(b"x-request-id: second")


def test_tokens_of_one_step_arrive_in_one_chunk(server: FakeServer) -> None:
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"prompt": "a", "n": 4, "stream": True}) as reply:
        chunks = list(reply.iter_raw())
    assert max(chunk.count(b"data: ") for chunk in chunks) >= 4


def test_head_and_get_have_the_same_length(server: FakeServer) -> None:
    head, get = httpx.head(f"{server.url}/openapi.json"), httpx.get(f"{server.url}/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_escaped_slash_in_a_model_id_reaches_the_route(server: FakeServer) -> None:
    assert httpx.get(f"{server.url}/v1/models/fake%2Fmodel").json()["id"] == "fake/model"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: a\r\nhost: localhost\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"NONSENSE\r\n\r\n",
    ],
    ids=["no host", "two hosts", "negative length", "two lengths", "nonsense"],
)
def test_malformed_requests_are_refused_and_the_server_goes_on(server: FakeServer, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request_bytes)
        status = connection.recv(4096).split(b"\r\n")[0]
    assert status[:10] == b"HTTP/1.1 4"
    assert server.health()["status"] == "healthy"


def test_64_streams_at_once_are_all_complete(server: FakeServer) -> None:
    with httpx.Client(base_url=server.url, timeout=20) as client, ThreadPoolExecutor(max_workers=64) as pool:
        path, body = "/v1/chat/completions", chat_body(stream=True)
        texts = [reply.text for reply in pool.map(lambda _: client.post(path, content=body), range(64))]
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)
    assert server.health()["running"] == 0
