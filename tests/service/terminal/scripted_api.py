"""A real HTTP server on loopback that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One reply; without `is_whole` the connection ends before the promised length."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}
    is_whole: bool = True
    is_held: bool = False
    """After the body the connection stays open until the client leaves."""


class ScriptedApi:
    """Answers by `METHOD /path` without the query; anything else is a 404 that is no JSON."""

    def __init__(self, url: str, answers: dict[str, Answer]) -> None:
        self.url = url
        self.answers = answers
        self.asked: list[Asked] = []
        self.left = Event()
        """Set when a client left a held reply."""


@contextmanager
def scripted_api(**answers: object) -> Iterator[ScriptedApi]:
    """Serve until the context ends. Keywords are GETs: `v1_presets={...}` answers GET /v1/presets with JSON."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    told = {f"GET /{name.replace('_', '/')}": Answer(body=msgspec.json.encode(body)) for name, body in answers.items()}
    api = ScriptedApi(f"http://127.0.0.1:{server.server_port}", told)
    server.api = api  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        api: ScriptedApi = self.server.api  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        api.asked.append(Asked(self.command, self.path, headers, msgspec.json.decode(body) if body else None))
        answer = api.answers.get(f"{self.command} {self.path.partition('?')[0]}", Answer(status=404, body=b"no such"))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not answer.is_held:
            self.send_header("content-length", str(len(answer.body) + (0 if answer.is_whole else 10)))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()
        if answer.is_held and not self.connection.recv(1):
            api.left.set()

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep standard error clean."""
