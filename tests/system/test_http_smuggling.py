"""Requests whose end two servers could see in different places, and heads that once ended granian: one by one.

Behind each request an ordinary one is sent, which is answered with 404. Where it is answered, the server has read the
request before it to its end and no further; where it is not, the connection was closed after one reply.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts.settings import ServerSettings
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server
from tests.system.raw_http import BODY, SENTINEL_STATUS, RawReplies, chunked, exchange, get, post

LENGTH = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"
SMUGGLED = get(target=b"/health")

REFUSED_AND_CLOSED = {
    "transfer-encoding on a folded line": post(b"transfer-encoding:", b" chunked", body=chunked()),
    "folded header": get(b"x-a: b", b" c"),
    "space before the colon": post(b"transfer-encoding : chunked", body=chunked()),
    "vertical tab before chunked": post(b"transfer-encoding: \x0bchunked", body=chunked()),
    "quoted chunked": post(b'transfer-encoding: "chunked"', body=chunked()),
    "xchunked": post(b"transfer-encoding: xchunked", body=chunked()),
    "gzip, chunked": post(b"transfer-encoding: gzip, chunked", body=chunked()),
    "chunked, identity": post(b"transfer-encoding: chunked, identity", body=chunked()),
    "chunked and identity": post(CHUNKED, b"transfer-encoding: identity", body=chunked()),
    "chunked twice": post(CHUNKED, CHUNKED, body=chunked()),
    "identity with a length": post(b"transfer-encoding: identity", LENGTH),
    "empty transfer-encoding": post(b"transfer-encoding:", body=chunked()),
    "chunked in HTTP/1.0": post(CHUNKED, body=chunked()).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "two lengths": post(LENGTH, b"content-length: 5"),
    "list of lengths": post(b"content-length: 32, 32"),
    "length with plus": post(b"content-length: +32"),
    "negative length": post(b"content-length: -1"),
    "hexadecimal length": post(b"content-length: 0x20"),
    "length with a space": post(b"content-length: 3 2"),
    "empty length": post(b"content-length:"),
    "length over 64 bits": post(b"content-length: 18446744073709551616"),
    "length in Arabic digits": post("content-length: \u0663\u0662".encode()),
    "carriage return in a value": get(b"x-a: b\rx-b: c"),
    "two carriage returns at the end": get().replace(b"\r\n\r\n", b"\r\r\n\r\n"),
    "NUL in a value": get(b"x-a: b\0c"),
    "NUL in a name": get(b"x\0a: b"),
    "line without a colon": get(b"nonsense"),
    "empty name": get(b": x"),
    "space in a name": get(b"x y: z"),
    "space before the first header": b"GET /health HTTP/1.1\r\n host: localhost\r\n\r\n",
    "chunk lines ended by line feeds": post(CHUNKED, body=b"%x\n%s\n0\n\n" % (len(BODY), BODY)),
    "line feed in a chunk extension": post(CHUNKED, body=b"%x;a\nxx\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "long chunk extension": post(CHUNKED, body=b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(BODY), b"a" * 20_000, BODY)),
    "negative chunk": post(CHUNKED, body=b"-1\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk with 0x": post(CHUNKED, body=b"0x20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk with plus": post(CHUNKED, body=b"+20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk over 64 bits": post(CHUNKED, body=b"10000000000000020\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk without an end of line": post(CHUNKED, body=b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY)),
    "garbage": b"NONSENSE\r\n\r\n",
    "space in the target": get(target=b"/health x"),
    "tabs in the first line": get().replace(b" /health ", b"\t/health\t"),
    "two spaces in the first line": get().replace(b" /health ", b"  /health  "),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/1.2": get().replace(b"HTTP/1.1", b"HTTP/1.2"),
    "HTTP/2.0 in the first line": get().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "non-ASCII method": get().replace(b"GET", b"F\xc3\xb6O"),
    "non-ASCII name": get(b"x-\xff: a"),
    "non-ASCII target": get(target=b"/h\xff"),
}  # fmt: skip
"""One reply of 400, then the connection is closed."""

READ_ONE_WAY = {
    "length and chunks": (post(LENGTH, CHUNKED, body=chunked()), [200]),
    "chunks and length": (post(CHUNKED, LENGTH, body=chunked()), [200]),
    "chunks and a length that ends sooner": (post(b"content-length: 4", CHUNKED, body=chunked()), [200]),
    "chunks and a length that holds a request": (
        post(b"content-length: %d" % len(chunked() + SMUGGLED), CHUNKED, body=chunked() + SMUGGLED),
        [200],
    ),
    "equal lengths": (post(LENGTH, LENGTH), [200, SENTINEL_STATUS]),
    "length one short: the rest is no request": (post(b"content-length: %d" % (len(BODY) - 1)), [400, 400]),
    "length with zeros": (post(b"content-length: 00%d" % len(BODY)), [200, SENTINEL_STATUS]),
    "tab before chunked": (post(b"transfer-encoding:\tchunked", body=chunked()), [200, SENTINEL_STATUS]),
    "upper case": (post(b"TRANSFER-ENCODING: CHUNKED", body=chunked()), [200, SENTINEL_STATUS]),
    "line feeds for line ends": (post(LENGTH).replace(b"\r\n", b"\n"), [200, SENTINEL_STATUS]),
    "line feed in a value ends the line": (post(b"x-a: b\n" + CHUNKED, body=chunked()), [200, SENTINEL_STATUS]),
    "empty lines first": (b"\r\n\r\n" + get(), [200, SENTINEL_STATUS]),
    "chunk extension": (
        post(CHUNKED, body=b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
        [200, SENTINEL_STATUS],
    ),
    "headers behind the chunks are dropped": (
        post(CHUNKED, body=b"%x\r\n%s\r\n0\r\nhost: evil\r\ncontent-length: 5\r\n\r\n" % (len(BODY), BODY)),
        [200, SENTINEL_STATUS],
    ),
    "GET with a body": (get(b"content-length: %d" % len(SMUGGLED)) + SMUGGLED, [200, SENTINEL_STATUS]),
    "GET with chunks": (get(CHUNKED) + chunked(SMUGGLED), [200, SENTINEL_STATUS]),
    "pipelined": (post(LENGTH) + post(LENGTH), [200, 200, SENTINEL_STATUS]),
    "expectation": (post(LENGTH, b"expect: 100-continue"), [100, 200, SENTINEL_STATUS]),
    "whole URL as target": (get(target=b"http://evil.com/health"), [200, SENTINEL_STATUS]),
    "whole URL without Host": (b"GET http://evil.com/health HTTP/1.1\r\n\r\n", [403, SENTINEL_STATUS]),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", [403, SENTINEL_STATUS]),
    "two Hosts": (get(b"host: localhost"), [400, SENTINEL_STATUS]),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", [405, SENTINEL_STATUS]),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", [404, SENTINEL_STATUS]),
    "odd method": (get().replace(b"GET", b"!#$%&'*+"), [405, SENTINEL_STATUS]),
    "long method": (get().replace(b"GET", b"G" * 1000), [405, SENTINEL_STATUS]),
    "broken percent signs": (get(target=b"/%zz%ff%00%"), [404, SENTINEL_STATUS]),
    "non-ASCII value": (get(b"x-a: \xff\xfe"), [200, SENTINEL_STATUS]),
    "upgrade to HTTP/2": (
        get(b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__"),
        [200, SENTINEL_STATUS],
    ),
    "upgrade to a websocket of a non-ASCII protocol": (
        get(
            *(b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13"),
            *(b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"sec-websocket-protocol: \xff\xfe"),
        ),
        [200, SENTINEL_STATUS],
    ),
    "HTTP/2 from the start": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []),
}  # fmt: skip
"""What granian reads in one definite way, and the statuses that come back.

A length beside chunks is ignored and the connection closed, as RFC 9112 wants; a line feed alone ends a line, which it
allows: whoever puts a proxy in front that passes line feeds inside values through must know it.
"""

TOO_LARGE = {
    "65 headers": (get(*(b"x-%d: a" % number for number in range(64))), 431),
    "101 headers": (get(*(b"x-%d: a" % number for number in range(100))), 431),
    "33 KiB of headers": (get(b"x: " + b"a" * 33_000), 431),
    "500 KB of headers": (get(b"x: " + b"a" * 500_000), 431),
    "1 MiB key": (get(b"authorization: Bearer " + b"a" * 2**20), 431),
    "9 KB target": (get(target=b"/" + b"a" * 9_000), 414),
    "70 KB target": (get(target=b"/" + b"a" * 70_000), 414),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with running_server(FakeServerOptions()) as server:
        yield server


@pytest.fixture(scope="module")
def keyed() -> Iterator[FakeServer]:
    with running_server(FakeServerOptions(server=ServerSettings(api_keys="sk-canary-0123456789"))) as server:
        yield server


@pytest.fixture(autouse=True)
def server_survives(server: FakeServer) -> Iterator[None]:
    """After every request the same process goes on."""
    yield
    assert server.health()["status"] == "healthy"


def smuggled_replies(replies: RawReplies) -> int:
    """Replies of /health, which only the request inside another's body asks for."""
    return replies.data.count(b'"num_blocks"')


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in REFUSED_AND_CLOSED.items()])
def test_ambiguous_request_is_one_400_and_the_end_of_the_connection(server: FakeServer, data: bytes) -> None:
    assert exchange(server.port, data).statuses == [400]


@pytest.mark.parametrize(("data", "statuses"), [pytest.param(*case, id=name) for name, case in READ_ONE_WAY.items()])
def test_other_request_is_read_in_one_way(server: FakeServer, data: bytes, statuses: list[int]) -> None:
    replies = exchange(server.port, data)
    assert replies.statuses == statuses
    assert smuggled_replies(replies) <= data.startswith((b"GET", b"\r\n"))


@pytest.mark.parametrize(("data", "status"), [pytest.param(*case, id=name) for name, case in TOO_LARGE.items()])
def test_head_over_the_limits_is_refused(server: FakeServer, data: bytes, status: int) -> None:
    assert exchange(server.port, data).statuses[0] == status


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=name)
        for name, (data, statuses) in READ_ONE_WAY.items()
        if 200 in statuses or 404 in statuses[:-1] or 405 in statuses
    ],
)
def test_nothing_of_it_is_served_without_a_key(keyed: FakeServer, data: bytes) -> None:
    statuses = exchange(keyed.port, data).statuses
    assert set(statuses) <= {100, 401}
    assert statuses
