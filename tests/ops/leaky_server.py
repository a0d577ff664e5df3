"""A server that answers what a soak asks, and keeps a file descriptor of every request where it is told to.

python leaky_server.py          prints its base URL
python leaky_server.py leak
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

FINISHED = b'{"choices":[{"index":%d,"text":"word","finish_reason":"length"}]}'


class Asked(msgspec.Struct):
    """What distinguishes the requests of a soak: its invalid ones carry no seed."""

    seed: int
    n: int = 1
    stream: bool = False


class LeakyServer:
    """Owns what it leaks: nothing gives it back."""

    def __init__(self, *, is_leaking: bool) -> None:
        self._is_leaking = is_leaking
        self._kept: list[int] = []

    async def serve(self) -> None:
        """Listen on a free port, say where, and run until the process is ended."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
        sys.stdout.flush()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, then the connection is closed."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await _read_body(reader, head)
            if self._is_leaking:
                self._kept.append(os.dup(0))
            writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n%b" % _reply(head, body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body by its length; a chunked one, which only a client that leaves sends, is read until it does."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.partition(b":")[2]))
    return await reader.readexactly(2**20) if b"chunked" in head else b""


def _reply(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Status and body."""
    if head.startswith(b"GET /health "):
        return b"200 OK", b'{"status":"ok","running":0,"free_blocks":7}'
    if head.startswith(b"GET "):
        return b"404 Not Found", b"{}"
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return b"400 Bad Request", b'{"error":{"message":"no seed"}}'
    choices = [FINISHED % index for index in range(asked.n)]
    if not asked.stream:
        return b"200 OK", choices[0]
    return b"200 OK", b"".join(b"data: %b\n\n" % event for event in [*choices, b"[DONE]"])


if __name__ == "__main__":
    asyncio.run(LeakyServer(is_leaking="leak" in sys.argv).serve())
