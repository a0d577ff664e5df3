"""Events are the same however the network cuts their bytes."""

from __future__ import annotations

import pytest

from service.terminal.event_stream import ServerEvent, read_events

STREAM = "id: 1\ndata: äöü\n\n: comment\n\nevent: end\ndata:a\ndata: b\nretry: 5\n\nid: 9\n\ndata: cut off"
EVENTS = [ServerEvent("message", "1", "äöü"), ServerEvent("end", None, "a\nb")]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk_len", [1, 2, 3, 7, 1000])
def test_events_are_the_same_in_any_chunks(line_end: str, chunk_len: int) -> None:
    sent = STREAM.replace("\n", line_end).encode()
    chunks = [sent[start : start + chunk_len] for start in range(0, len(sent), chunk_len)]
    assert list(read_events(chunks)) == EVENTS
