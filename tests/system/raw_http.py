"""Bytes to a server and back: what it answers to a head or body that no HTTP library would send."""

from __future__ import annotations

import re
import socket
import ssl
from contextlib import suppress
from typing import NamedTuple

BODY = b'{"prompt": "a", "max_tokens": 1}'
SENTINEL_STATUS = 404
_SENTINEL = b"GET /sentinel HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")


class RawReplies(NamedTuple):
    """What came back until the server closed."""

    statuses: list[int]
    data: bytes


def connect(port: int, context: ssl.SSLContext | None = None, timeout_s: float = 20.0) -> socket.socket:
    """A connection to the server on this machine."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    return connection if context is None else context.wrap_socket(connection, server_hostname="localhost")


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the server closes, however it does so."""
    received = bytearray()
    with suppress(ConnectionResetError, BrokenPipeError):
        while data := connection.recv(65536):
            received += data
    return bytes(received)


def exchange(port: int, data: bytes) -> RawReplies:
    """Send the bytes and behind them an ordinary request, which is answered with 404 where the server still listens.

    Whatever the bytes are, the server closes in the end, so that nothing depends on how long it takes.
    """
    with connect(port) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data + _SENTINEL)
        received = read_to_end(connection)
    return RawReplies([int(status) for status in _STATUS.findall(received)], received)


def post(*header_lines: bytes, body: bytes = BODY, path: bytes = b"/v1/completions") -> bytes:
    """A POST request with these header lines and a Host, and the body as it stands."""
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"host: localhost", *header_lines, b"", b""]) + body


def get(*header_lines: bytes, target: bytes = b"/health") -> bytes:
    """A GET request with these header lines and a Host."""
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"host: localhost", *header_lines, b"", b""])


def chunked(body: bytes = BODY) -> bytes:
    """The body as one chunk and an end."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
