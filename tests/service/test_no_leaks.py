"""What the server opens and what its errors say: nothing beyond the request (S31, S43, S45)."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import litestar
import msgspec
import pytest

from contracts.errors import QuireError
from contracts.generation import FinishReason, GenerationRequest
from contracts.settings import ServerSettings, Settings
from tests.fakes import FakeEngine, say

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
SECRET = "canary-of-the-environment-5c1f"  # noqa: S105

LEAKS = re.compile(
    r"Traceback|File \"|line \d+, in |\.py\b|0x[0-9a-fA-F]{4,}|site-packages|/home/|/usr/|/srv/|/tmp/"
    r"|litestar|granian|msgspec|uvloop|pydantic|Python/|torch|<class |object at|Exception\b|ZeroDivision"
    rf"|{re.escape(SECRET)}|{re.escape(litestar.__version__.formatted(short=True))}|{re.escape(msgspec.__version__)}"
    rf"|{re.escape(sys.executable)}|{re.escape(str(Path.cwd()))}"
)

URLS = [
    "http://127.0.0.1:9/x.png",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "https://example.org/a.png",
]
URL_FIELDS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "URL"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": {"url": "URL"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "URL"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "URL"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "URL"}}]}]},
    {"messages": MESSAGES, "tools": [{"type": "mcp", "server_url": "URL"}]},
    {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "URL"}}}},
    {"messages": MESSAGES, "image_url": "URL"},
    {"messages": MESSAGES, "web_search_options": {"url": "URL"}},
]


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Everything that anybody connects to or resolves."""
    seen: list[object] = []

    def note(*args: object, **kwargs: object) -> None:
        seen.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setattr(socket.socket, "connect_ex", note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr(socket, "create_connection", note)
    return seen


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("body", URL_FIELDS, ids=lambda body: str(body)[:60])
async def test_url_in_a_request_is_refused_and_never_opened(
    client: httpx.AsyncClient, connects: list[object], body: dict[str, Any], url: str
) -> None:
    """S31"""
    content = msgspec.json.encode(body).replace(b"URL", url.encode())
    assert (await client.post(CHAT, content=content)).status_code == 400
    assert connects == []


async def test_url_in_a_text_is_text(client: httpx.AsyncClient, connects: list[object]) -> None:
    """S31"""
    text = " ".join(f"![x]({url})" for url in URLS)
    assert (await client.post(CHAT, json={"messages": [{"role": "user", "content": text}]})).status_code == 200
    assert connects == []


HOSTILE_NAMES = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc",
    "a/../../b",
    "/etc/passwd",
    "//etc/passwd",
    "%00",
    "fake/model%00.txt",
    "fake/m\u043edel",
    "x" * 300,
    "C:%5Cwindows",
    "fake%5C..%5Cmodel",
    "~/.ssh/id_rsa",
    "file:%2F%2F%2Fetc%2Fpasswd",
]
_opened: list[str] | None = None


def _note_open(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event in {"open", "os.listdir", "os.scandir"} and isinstance(args[0], str | bytes):
        _opened.append(os.fsdecode(args[0]))


sys.addaudithook(_note_open)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths that the interpreter opens meanwhile."""
    global _opened  # noqa: PLW0603 (an audit hook cannot be taken away)
    _opened = []
    yield _opened
    _opened = None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("prefix", ["/v1/models/", "/assets/", "/"])
async def test_name_in_a_path_opens_no_file(
    client: httpx.AsyncClient, opened: list[str], prefix: str, name: str
) -> None:
    """S43"""
    reply = await client.get(prefix + name)
    assert reply.status_code in {400, 404}
    assert opened == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_name_in_a_body_opens_no_file(client: httpx.AsyncClient, opened: list[str], name: str) -> None:
    """S43"""
    reply = await client.post(CHAT, json={"messages": MESSAGES, "model": name})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert opened == []


def explode(request: GenerationRequest, sample: int) -> list[int]:
    raise ZeroDivisionError(f"at 0x7ffe1234 in /home/user/engine.py: {os.environ['QUIRE_CANARY']}")


BAD_REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/nope", {}),
    ("GET", "/v1/models/nope", {}),
    ("GET", "/assets/..%2f..%2fetc%2fpasswd", {}),
    ("GET", CHAT, {}),
    ("PUT", CHAT, {"json": {}}),
    ("DELETE", "/v1/models", {}),
    ("PATCH", "/health", {}),
    ("GET", "/health?" + "q" * 9000, {}),
    ("GET", "/health", {"headers": {f"x-{number}": "v" for number in range(65)}}),
    ("GET", "/health", {"headers": {"host": "evil.com"}}),
    ("GET", "/v1/models", {"headers": {"origin": "http://evil.com"}}),
    *(("POST", path, {"content": body}) for path in (CHAT, COMPLETIONS) for body in (b"", b"{", b"[", b"\xff", b"[1]")),
    *(("POST", path, {"content": b"x", "headers": {"content-type": "text/plain"}}) for path in (CHAT, COMPLETIONS)),
    *(("POST", path, {"content": b"[" * 100_000}) for path in (CHAT, COMPLETIONS)),
    *(("POST", path, {"content": b" " * 70_000}) for path in (CHAT, COMPLETIONS)),
    ("POST", CHAT, {"json": {}}),
    ("POST", CHAT, {"json": {"messages": "hi"}}),
    ("POST", CHAT, {"json": {"messages": [{"role": "robot"}]}}),
    ("POST", CHAT, {"json": {"messages": MESSAGES, "n": 10**30}}),
    ("POST", CHAT, {"json": {"messages": MESSAGES, "zzz": {}}}),
    ("POST", CHAT, {"json": {"messages": MESSAGES, "model": "gpt-5"}}),
    ("POST", CHAT, {"json": {"messages": MESSAGES, "max_tokens": 10**9}}),
    ("POST", CHAT, {"json": {"messages": MESSAGES, "logit_bias": {"x": 1}}}),
    ("POST", COMPLETIONS, {"json": {"prompt": [[]]}}),
    ("POST", COMPLETIONS, {"json": {"prompt": [10**30]}}),
    ("POST", COMPLETIONS, {"json": {"prompt": "a", "suffix": "b"}}),
]


def check_no_leak(reply: httpx.Response) -> None:
    """No header and no byte of the body says what the server is made of."""
    found = LEAKS.search(reply.text + "".join(f"{name}: {value}\n" for name, value in reply.headers.items()))
    assert found is None, f"{found[0]!r} in {reply.text}"


class TestErrorBodies:
    """S45"""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUIRE_CANARY", SECRET)
        monkeypatch.setenv("LITESTAR_DEBUG", "1")

    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(server=ServerSettings(max_body_bytes=60_000))

    @pytest.mark.parametrize(("method", "path", "options"), BAD_REQUESTS)
    async def test_refusals_reveal_nothing(
        self, client: httpx.AsyncClient, method: str, path: str, options: dict[str, Any]
    ) -> None:
        reply = await client.request(method, path, **options)
        assert 400 <= reply.status_code < 500
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        check_no_leak(reply)

    @pytest.mark.parametrize("body", [{"messages": MESSAGES}, {"messages": MESSAGES, "stream": True}])
    async def test_failures_of_the_server_reveal_nothing(
        self, client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any]
    ) -> None:
        engine.script = explode
        check_no_leak(await client.post(CHAT, json=body))
        engine.script = say("abc")
        for reason in (FinishReason.ERROR, FinishReason.LOST, FinishReason.DEADLINE):
            engine.fail_after, engine.failure = 1, reason
            reply = await client.post(CHAT, json=body)
            assert "error" in reply.text
            check_no_leak(reply)

    async def test_failure_in_translation_reveals_nothing(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def break_down(*args: object) -> None:
            raise RuntimeError("0x7ffe1234 /home/user/site-packages/litestar")

        monkeypatch.setattr("service.translate.refuse_unsupported", break_down)
        replies = [
            await client.post(CHAT, json={"messages": MESSAGES}),
            await client.post(COMPLETIONS, json={"prompt": "a"}),
        ]
        assert [reply.status_code for reply in replies] == [500, 500]
        for reply in replies:
            check_no_leak(reply)

    def test_every_kind_of_error_has_a_fixed_shape(self) -> None:
        kinds = [QuireError]
        for kind in kinds:
            kinds += kind.__subclasses__()
        assert len(kinds) > 15
        assert all(not LEAKS.search(f"{kind.type} {kind.code}") for kind in kinds)
