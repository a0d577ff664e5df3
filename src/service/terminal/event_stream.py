"""Server-sent events: splits the bytes of a reply into events. Knows nothing of HTTP or of what the events say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class ServerEvent(NamedTuple):
    """One event as it was sent."""

    event: str
    """Its name; `message` where it has none."""
    id: str | None
    data: str


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a reply as its bytes come; comments, and events without data, are left out."""
    name, event_id, data = "", None, list[str]()
    for line in _read_lines(chunks):
        if not line:
            if data:
                yield ServerEvent(name or "message", event_id, "\n".join(data))
            name, event_id, data = "", None, []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value


def _read_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines end with LF, CR LF or CR; a character or a line end may be cut by the end of a chunk."""
    rest = b""
    for chunk in chunks:
        received = rest + chunk
        tail = b"\r" if received.endswith(b"\r") else b""
        received = received.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = received.split(b"\n")
        rest += tail
        yield from (line.decode("utf-8", "replace") for line in lines)
