"""Clients that send slowly, or nothing, lose their connection on time and cost the others nothing."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from contracts.settings import ServerSettings
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server
from tests.system.raw_http import BODY, connect, get, post, read_to_end

TIMEOUT_S = 1.0
PATIENCE_S = 15.0
NUM_IDLE = 2000
PACE_S = 0.1


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    """It may hold as many connections as the idle ones are, and so may this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * NUM_IDLE, before[1]), before[1]))
    settings = ServerSettings(header_timeout_s=TIMEOUT_S, body_timeout_s=TIMEOUT_S)
    with running_server(FakeServerOptions(server=settings)) as server:
        yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def drip(connection: socket.socket, data: bytes) -> tuple[bytes, float]:
    """Send a byte at a time until the server has had enough; what it said, and after how many seconds."""
    start_s = time.monotonic()
    connection.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        for byte in data:
            if selector.select(PACE_S):
                break
            connection.send(bytes([byte]))
    elapsed_s = time.monotonic() - start_s
    connection.settimeout(PATIENCE_S)
    return read_to_end(connection), elapsed_s


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_headers_that_drip_are_cut(server: FakeServer) -> None:
    with connect(server.port) as connection:
        said, elapsed_s = drip(connection, get(b"x-slow: " + b"a" * 500))
    assert said == b""
    assert 0.9 * TIMEOUT_S < elapsed_s < PATIENCE_S


def test_body_that_drips_is_cut_with_408(server: FakeServer) -> None:
    with connect(server.port) as connection:
        connection.sendall(post(b"content-length: 500", body=b""))
        said, elapsed_s = drip(connection, BODY + b" " * 400)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"after 1 s" in said
    assert 0.9 * TIMEOUT_S < elapsed_s < PATIENCE_S


def test_kept_connection_is_closed_when_no_request_follows(server: FakeServer) -> None:
    with connect(server.port) as connection:
        connection.sendall(get())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert read_to_end(connection) == b""


def test_endless_head_is_cut_and_not_kept(server: FakeServer) -> None:
    before_kib = resident_kib(server.pid)
    sent = 0
    with connect(server.port) as connection, pytest.raises(OSError):
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        while sent < 2**28:
            sent += connection.send(b"x-a: " + b"a" * 10_000 + b"\r\n")
    assert sent < 2**26
    assert resident_kib(server.pid) - before_kib < 8192


def test_idle_connections_are_cut_and_nobody_waits_for_them(server: FakeServer) -> None:
    num_idle = min(NUM_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(server.port)) for _ in range(num_idle)]
        for connection in idle[::2]:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\n")
        with server.client() as client:
            replies = [client.post("/v1/completions", content=BODY) for _ in range(20)]
        endings = [read_to_end(connection) for connection in idle]
    assert [reply.status_code for reply in replies] == [200] * 20
    assert max(reply.elapsed.total_seconds() for reply in replies) < TIMEOUT_S
    assert set(endings) == {b""}


@pytest.mark.parametrize("chunk_len", [1, 6])
def test_body_in_tiny_chunks_is_refused_before_it_costs_much(server: FakeServer, chunk_len: int) -> None:
    chunk = b"%x\r\n%s\r\n" % (chunk_len, b" " * chunk_len)
    before_s = cpu_s(server.pid)
    with connect(server.port) as connection:
        connection.sendall(post(b"transfer-encoding: chunked", body=b""))
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(chunk * (3 * 2**20 // chunk_len))
        read_to_end(connection)
    assert cpu_s(server.pid) - before_s < TIMEOUT_S / 2


def test_body_in_small_chunks_is_read(server: FakeServer) -> None:
    with server.client() as client:
        reply = client.post("/v1/completions", content=iter([b" " * 128] * 5000 + [BODY]))
    assert reply.status_code == 200


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
