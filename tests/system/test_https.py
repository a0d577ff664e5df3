"""HTTPS from TLS 1.2 on, with the same limits on slow clients as without."""

from __future__ import annotations

import ssl
import time
import warnings
from collections.abc import Iterator

import httpx
import pytest

from contracts.settings import ServerSettings
from tests.certificates import make_certificate
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server
from tests.system.raw_http import BODY, connect, get, read_to_end

KEY = "sk-canary-0123456789"
TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    settings = ServerSettings(
        ssl_certfile=certificate.certfile,
        ssl_keyfile=certificate.keyfile,
        api_keys=KEY,
        header_timeout_s=TIMEOUT_S,
    )
    with running_server(FakeServerOptions(server=settings)) as server:
        yield server


def context_for(server: FakeServer, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's context that speaks this version only."""
    context = ssl.create_default_context(cafile=server.certfile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = version
        context.maximum_version = version
    return context


@pytest.mark.parametrize("is_stream", [True, False])
def test_requests_are_served(server: FakeServer, is_stream: bool) -> None:
    with server.client() as client:
        body = {"prompt": "a", "max_tokens": 3, "stream": is_stream}
        reply = client.post("/v1/completions", json=body, headers={"origin": server.url})
    assert reply.status_code == 200
    assert "abc" in reply.text.replace('"}', "") or reply.text.count("data: ") >= 3


def test_key_is_needed_here_too(server: FakeServer) -> None:
    with server.client() as client:
        del client.headers["authorization"]
        assert client.get("/v1/models").status_code == 401


def test_plain_page_of_the_same_name_is_a_stranger(server: FakeServer) -> None:
    with server.client() as client:
        reply = client.get("/v1/models", headers={"origin": server.url.replace("https:", "http:")})
    assert reply.status_code == 403


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions_are_spoken(server: FakeServer, version: ssl.TLSVersion) -> None:
    with connect(server.port, context_for(server, version)) as connection:
        connection.sendall(get(b"connection: close"))
        assert read_to_end(connection).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused(server: FakeServer, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError), connect(server.port, context_for(server, version)):
        pass


def test_http_2_is_not_offered(server: FakeServer) -> None:
    context = ssl.create_default_context(cafile=server.certfile)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(server.port, context) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_plain_http_is_not_answered(server: FakeServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https:", "http:") + "/health")
    assert server.health()["status"] == "healthy"


def test_stranger_certificate_is_noticed_by_clients(server: FakeServer) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(server.url + "/health")


def test_slow_headers_are_cut_under_tls(server: FakeServer) -> None:
    start_s = time.monotonic()
    with connect(server.port, ssl.create_default_context(cafile=server.certfile)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        assert read_to_end(connection) == b""
    assert 0.9 * TIMEOUT_S < time.monotonic() - start_s < 15


@pytest.mark.slow
def test_handshake_that_does_not_come_is_cut(server: FakeServer) -> None:
    """By granian's own limit, which cannot be set: 15 s in 2.8.7."""
    with connect(server.port, timeout_s=60) as connection:
        assert read_to_end(connection) == b""


def test_body_sent_before_the_handshake_is_no_request(server: FakeServer) -> None:
    with connect(server.port) as connection:
        connection.sendall(get() + BODY)
        assert b"HTTP" not in read_to_end(connection)
