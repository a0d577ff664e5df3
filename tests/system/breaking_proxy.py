"""A server that stands before a real one and breaks some of its replies on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

Break = Callable[[str, bytes, bytes], bytes]
"""`METHOD /path`, the body asked and what is answered, a whole body or a piece of a stream, to what goes out."""
_HOP = frozenset({"connection", "content-length", "content-encoding", "transfer-encoding", "host", "date", "server"})


@contextmanager
def broken(url: str, break_reply: Break) -> Iterator[str]:
    """Forwards to `url` while the context lasts; the address of the broken server. A reply ends with its connection."""

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["accept-encoding"] = "identity"
            route = f"{self.command} {self.path.partition('?')[0]}"
            with client.stream(self.command, self.path, content=asked, headers=headers) as reply:
                self.send_response(reply.status_code)
                for name, value in reply.headers.items():
                    if name not in _HOP:
                        self.send_header(name, value)
                self.end_headers()
                is_stream = reply.headers.get("content-type", "").startswith("text/event-stream")
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                    for piece in reply.iter_bytes() if is_stream else [reply.read()]:
                        self.wfile.write(break_reply(route, asked, piece))

        do_GET = do_POST = do_DELETE = do_PATCH = _forward  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep standard error clean."""

    with httpx.Client(base_url=url, timeout=20) as client, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
