"""The container's health check against servers that are ready, not ready, silent and absent."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ops.container.probe import PATH, open_connection, probe


class Handler(BaseHTTPRequestHandler):
    """Answers the readiness path with the status that the server holds."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == PATH else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        return


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.status = 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield listener
        listener.shutdown()
        thread.join()


def environ(server: HTTPServer) -> dict[str, str]:
    return {"LLM_PORT": str(server.server_port)}


def test_ready_server_is_no_problem(server: HTTPServer) -> None:
    assert probe(environ(server)) is None


def test_draining_server_is_a_problem(server: HTTPServer) -> None:
    server.status = 503  # type: ignore[attr-defined]
    assert probe(environ(server)) == f"{PATH} on port {server.server_port}: HTTP 503"


def test_absent_server_is_a_problem(server: HTTPServer) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert "refused" in str(probe({"LLM_PORT": str(port)}))


def test_certificate_makes_it_https() -> None:
    assert isinstance(open_connection({"LLM_SSL_CERTFILE": "/a.pem"}), http.client.HTTPSConnection)
    assert not isinstance(open_connection({"LLM_SSL_CERTFILE": ""}), http.client.HTTPSConnection)
