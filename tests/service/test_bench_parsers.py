"""HTTP and SSE parsing of the load generator: the same result however the bytes are cut."""

from __future__ import annotations

import pytest

from service.bench.http_parser import ResponseFramingError, ResponseParser
from service.bench.sse_parser import EventSplitter, decode_event, describe_error

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7\r\nhello, \r\nA;name=value\r\nwide world\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
)
SIZED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\nConnection: close\r\n\r\nabcde"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
STREAM = (
    b': ping\n\ndata: {"choices":[{"text":"a"}]}\n\n'
    b"event: x\r\nid: 4\r\ndata:one\r\ndata: two\r\n\r\ndata: \xe2\x82\xac\n\ndata: [DONE]\n\n"
)
PAYLOADS = [b'{"choices":[{"text":"a"}]}', b"one\ntwo", "€".encode(), b"[DONE]"]


def parse(*pieces: bytes) -> tuple[ResponseParser, bytes]:
    """Feed the pieces to one parser."""
    parser = ResponseParser()
    return parser, b"".join([parser.feed(piece) for piece in pieces])


@pytest.mark.parametrize("cut", range(len(CHUNKED) + 1))
def test_chunked_body_survives_a_cut_anywhere(cut: int) -> None:
    """Every position in the head, the chunk sizes, the chunks and the trailers."""
    parser, body = parse(CHUNKED[:cut], CHUNKED[cut:])
    assert body == b"hello, wide world!"
    assert (parser.status, parser.is_complete, parser.is_keep_alive) == (200, True, True)


@pytest.mark.parametrize("response", [SIZED, CONTINUED])
@pytest.mark.parametrize("cut", range(len(SIZED)))
def test_sized_body_survives_a_cut_anywhere(response: bytes, cut: int) -> None:
    """Also behind an interim response."""
    parser, body = parse(response[:cut], response[cut:])
    assert body == b"abcde"
    assert (parser.status, parser.is_complete, parser.is_keep_alive) == (503, True, False)


@pytest.mark.parametrize("response", [CHUNKED, SIZED])
def test_response_survives_single_bytes(response: bytes) -> None:
    """The worst fragmentation there is."""
    whole, body = parse(response)
    bytewise, bytewise_body = parse(*[response[i : i + 1] for i in range(len(response))])
    assert bytewise_body == body
    assert bytewise.is_complete
    assert bytewise.headers == whole.headers


@pytest.mark.parametrize("cut", range(1, len(CHUNKED)))
def test_incomplete_response_is_not_complete(cut: int) -> None:
    """A connection that ends here was cut."""
    parser, _ = parse(CHUNKED[:cut])
    parser.feed_eof()
    assert not parser.is_complete


def test_body_without_length_ends_with_the_connection() -> None:
    """HTTP/1.0 style framing."""
    parser, body = parse(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd")
    assert (body, parser.is_complete) == (b"abcd", False)
    parser.feed_eof()
    assert parser.is_complete
    assert not parser.is_keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_other_protocols_are_refused(data: bytes) -> None:
    """With the offending bytes in the message."""
    with pytest.raises(ResponseFramingError):
        parse(data)


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_events_survive_a_cut_anywhere(cut: int) -> None:
    """Comments, CRLF, several data lines and UTF-8 included."""
    splitter = EventSplitter()
    assert splitter.feed(STREAM[:cut]) + splitter.feed(STREAM[cut:]) == PAYLOADS


def test_events_survive_single_bytes() -> None:
    """The worst fragmentation there is."""
    splitter = EventSplitter()
    assert [payload for i in range(len(STREAM)) for payload in splitter.feed(STREAM[i : i + 1])] == PAYLOADS


@pytest.mark.parametrize(
    ("choice", "has_text"),
    [
        ('{"text":" a"}', True),
        ('{"text":""}', False),
        ('{"delta":{"content":"a"}}', True),
        ('{"delta":{"reasoning_content":"a"}}', True),
        ('{"delta":{"role":"assistant","content":""}}', False),
        ('{"delta":{"content":null},"finish_reason":"stop"}', False),
    ],
)
def test_text_is_seen_in_both_endpoints_events(choice: str, has_text: bool) -> None:
    """Role and finish events bring none."""
    assert decode_event(b'{"choices":[%b]}' % choice.encode()).choices[0].has_text is has_text


@pytest.mark.parametrize(
    ("error", "words"), [({"message": "m", "code": None}, "m"), ("plain", "plain"), ({"x": 1}, "{'x': 1}")]
)
def test_errors_of_any_shape_are_put_in_words(error: object, words: str) -> None:
    """Peers differ."""
    assert describe_error(error) == words
