"""Incremental parser of one HTTP/1.1 response: status, headers, and a body framed by chunks, length or close.

Written for a load generator: a few microseconds a read. Knows nothing of sockets, SSE or time.
"""

from __future__ import annotations

import enum

MAX_HEAD_BYTES = 65536


class ResponseFramingError(Exception):
    """The bytes are not an HTTP/1.1 response."""


class Framing(enum.Enum):
    """How the end of the body is known."""

    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


class ResponseParser:
    """Owned by one exchange; `feed` until `is_complete`, `feed_eof` when the server closes."""

    __slots__ = ("_buffer", "_framing", "_remaining", "headers", "is_complete", "status")

    def __init__(self) -> None:
        self.status = 0
        """0 until the head is complete."""
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self._buffer = b""
        self._framing: Framing | None = None
        self._remaining = 0

    @property
    def is_keep_alive(self) -> bool:
        """The connection may carry another request after this response."""
        return self._framing is not Framing.CLOSE and self.headers.get("connection", "").lower() != "close"

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the socket and return the body bytes that they complete."""
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        if self._framing is None:
            data = self._feed_head(data)
        if self._framing is Framing.CHUNKED:
            return self._feed_chunks(data)
        if self._framing is Framing.LENGTH:
            return self._feed_length(data)
        if self._framing is Framing.CLOSE:
            return data
        return b""

    def feed_eof(self) -> None:
        """The server closed: complete only where the close is the framing."""
        if self._framing is Framing.CLOSE:
            self.is_complete = True

    def _feed_head(self, data: bytes) -> bytes:
        """Parse the head when all of it is here; returns what follows it."""
        while True:
            head, separator, rest = data.partition(b"\r\n\r\n")
            if not separator:
                if len(data) > MAX_HEAD_BYTES:
                    raise ResponseFramingError(f"response head longer than {MAX_HEAD_BYTES} bytes")
                self._buffer = data
                return b""
            self._parse_head(head)
            if self.status >= 200:
                break
            data = rest
        self._framing = self._choose_framing()
        return rest

    def _parse_head(self, head: bytes) -> None:
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ResponseFramingError(f"not an HTTP/1.1 status line: {status_line[:80]!r}")
        self.status = int(rest[:3])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _choose_framing(self) -> Framing:
        if self.status in (204, 304):
            self.is_complete = True
            return Framing.LENGTH
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return Framing.CHUNKED
        if "content-length" in self.headers:
            self._remaining = int(self.headers["content-length"])
            self.is_complete = self._remaining == 0
            return Framing.LENGTH
        return Framing.CLOSE

    def _feed_length(self, data: bytes) -> bytes:
        body = data[: self._remaining]
        self._remaining -= len(body)
        self.is_complete = self._remaining == 0
        return body

    def _feed_chunks(self, data: bytes) -> bytes:
        """Decode whole chunks; a part of one waits in the buffer."""
        pieces: list[bytes] = []
        position = 0
        while not self.is_complete:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            size = _parse_chunk_size(data[position:line_end])
            start = line_end + 2
            if size == 0:
                position = self._skip_trailers(data, position, start)
                break
            if len(data) < start + size + 2:
                break
            pieces.append(data[start : start + size])
            position = start + size + 2
        self._buffer = b"" if self.is_complete else data[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_trailers(self, data: bytes, chunk_start: int, position: int) -> int:
        """Position after the last line of the body, or `chunk_start` while it is not here yet."""
        while True:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                return chunk_start
            if line_end == position:
                self.is_complete = True
                return line_end + 2
            position = line_end + 2


def _parse_chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise ResponseFramingError(f"not a chunk size: {line[:40]!r}") from None
