"""A client that does not read costs itself only: the engine is not slowed, others are served, leaving frees it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.system.fake_server import FakeServer, FakeServerOptions, running_server

NUM_TOKENS = 80_000
"""About 15 MB of events: four times what fits into the buffers of a connection."""
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with running_server(FakeServerOptions(num_tokens=NUM_TOKENS)) as server:
        yield server


@pytest.fixture
def lazy_client(server: FakeServer) -> Iterator[socket.socket]:
    """Asks for a long stream, reads its status and no more."""
    body = json.dumps({"prompt": "a", "max_tokens": NUM_TOKENS, "stream": True}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-request-id: lazy"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield connection


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def finished_lines(server: FakeServer, request_id: str) -> list[dict[str, Any]]:
    lines = server.log_lines()
    return [line for line in lines if line["event"] == "request_finished" and line["request_id"] == request_id]


def test_unread_stream_disturbs_nobody_and_ends_when_the_client_leaves(
    server: FakeServer, lazy_client: socket.socket
) -> None:
    other = httpx.post(f"{server.url}/v1/completions", json={"prompt": "b", "max_tokens": 64}, timeout=WITHIN_S)
    assert other.json()["usage"]["completion_tokens"] == 64
    wait_for(lambda: server.health()["running"] == 0)
    assert finished_lines(server, "lazy") == []
    lazy_client.close()
    wait_for(lambda: len(finished_lines(server, "lazy")) == 1)
