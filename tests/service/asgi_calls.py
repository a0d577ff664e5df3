"""One request straight into an ASGI application, byte for byte as a server would hand it over."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

HeaderList = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """A whole reply."""

    status: int
    headers: HeaderList
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value.decode() for key, value in self.headers if key.lower() == name.encode()]

    @property
    def error(self) -> dict[str, Any]:
        """The object inside OpenAI's error reply."""
        error: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return error


async def ask(
    app: Any,
    path: str,
    method: str = "GET",
    *,
    headers: HeaderList | None = None,
    body: bytes = b"",
    scheme: str = "http",
) -> Reply:
    """Send one request to `path`, given as it stands on the wire; the Host is localhost unless headers name one."""
    given = headers if headers is not None else []
    hosts = [] if any(name == b"host" for name, _ in given) else [(b"host", b"localhost")]
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [*hosts, *given],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 40000),
        "state": {},
        "extensions": {},
    }
    sent: list[dict[str, Any]] = []
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return unread.pop() if unread else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], list(sent[0]["headers"]), content)


def bearer(key: str) -> tuple[bytes, bytes]:
    """The header that presents a key."""
    return (b"authorization", b"Bearer " + key.encode())
