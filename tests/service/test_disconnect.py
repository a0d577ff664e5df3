"""A client that leaves frees what it held, at once and in every phase, through a real granian."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.fake_server import FakeServer, FakeServerOptions

FREED_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def server(start_server: Callable[[FakeServerOptions], FakeServer]) -> FakeServer:
    """Answers that would take 50 s each."""
    return start_server(FakeServerOptions(num_tokens=5000, interval_s=0.01))


def send_request(
    server: FakeServer, *, is_stream: bool, path: str = "/v1/chat/completions", **extra: Any
) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    field = {"prompt": "a"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    body = json.dumps({**field, "stream": is_stream, **extra}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    connection.sendall(f"{head}\r\n\r\n".encode() + body)
    return connection


async def wait_for_running(server: FakeServer, wanted: int) -> float:
    """Seconds until that many requests run."""
    started_s = time.monotonic()
    async with asyncio.timeout(FREED_WITHIN_S):
        while (await asyncio.to_thread(server.health))["running"] != wanted:
            await asyncio.sleep(0.01)
    return time.monotonic() - started_s


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close_half(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [close, reset, close_half])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_leaving_frees_the_request(
    server: FakeServer, leave: Callable[[socket.socket], None], is_stream: bool
) -> None:
    connection = send_request(server, is_stream=is_stream)
    await wait_for_running(server, 1)
    leave(connection)
    await wait_for_running(server, 0)
    health = server.health()
    connection.close()
    assert health["free_blocks"] == health["num_blocks"]


async def test_leaving_in_the_middle_of_the_text_frees_the_request(server: FakeServer) -> None:
    connection = send_request(server, is_stream=True)
    received = b""
    while received.count(b"data: ") < 5:
        received += connection.recv(65536)
    connection.close()
    await wait_for_running(server, 0)
    health = server.health()
    assert health["free_blocks"] == health["num_blocks"]


@pytest.mark.parametrize("is_stream", [True, False])
async def test_leaving_frees_all_prompts_and_samples(server: FakeServer, is_stream: bool) -> None:
    connection = send_request(
        server, is_stream=is_stream, path="/v1/completions", prompt=["a", "b", "c"], n=2, max_tokens=5000
    )
    await wait_for_running(server, 3)
    connection.close()
    await wait_for_running(server, 0)
    health = server.health()
    assert health["free_blocks"] == health["num_blocks"]


async def test_leaving_is_logged_as_499(server: FakeServer) -> None:
    connection = send_request(server, is_stream=True)
    await wait_for_running(server, 1)
    connection.close()
    await wait_for_running(server, 0)
    finished = [line for line in server.log_lines() if line["event"] == "request_finished"]
    assert finished[-1]["status"] == 499
    assert finished[-1]["finish_reason"] is None


async def test_those_who_stay_are_not_disturbed(server: FakeServer) -> None:
    staying = send_request(server, is_stream=False, max_tokens=60)
    leaving = [send_request(server, is_stream=True) for _ in range(16)]
    await wait_for_running(server, 17)
    for connection in leaving:
        connection.close()
    reply = await asyncio.to_thread(staying.recv, 65536)
    staying.close()
    assert b'"content":"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh"' in reply
    assert server.health()["running"] == 0


async def test_connection_that_never_completes_its_body_holds_nothing(server: FakeServer) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    connection.close()
    assert (await wait_for_running(server, 0)) < FREED_WITHIN_S


def test_nothing_unexpected_was_logged(server: FakeServer) -> None:
    levels = {line["level"] for line in server.log_lines()}
    assert levels <= {"info"}
