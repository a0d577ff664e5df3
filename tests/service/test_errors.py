"""Every failure is OpenAI's error object with the right status and headers, and reveals nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from contracts.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    InvalidValue,
    QueueFull,
    QuireError,
    ShuttingDown,
)
from contracts.generation import GenerationRequest
from contracts.settings import ServerSettings, Settings
from service.error_responses import encode_error, error_headers
from tests.fakes import FakeEngine

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("error", "status", "code", "should_retry", "retry_after"),
    [
        (InvalidValue("no", param="n"), 400, "invalid_value", "false", None),
        (ContextLengthExceeded("no"), 400, "context_length_exceeded", "false", None),
        (QueueFull("no", retry_after_s=0.01), 503, "queue_full", "true", "1"),
        (QueueFull("no"), 503, "queue_full", "true", "1"),
        (ShuttingDown("no", retry_after_s=9.1), 503, "shutting_down", "true", "10"),
        (DeadlineExceeded("no"), 503, "deadline_exceeded", "true", "1"),
        (EngineError("no"), 500, "engine_error", "false", None),
        (EngineDead("no"), 503, "engine_dead", "true", "1"),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_refusal_at_admission_is_a_status_even_for_a_stream(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    error: QuireError,
    status: int,
    code: str,
    should_retry: str,
    retry_after: str | None,
    is_stream: bool,
) -> None:
    engine.refusal = error
    reply = await client.post(CHAT, json=BODY | {"stream": is_stream})
    assert reply.status_code == status
    assert reply.json()["error"]["code"] == code
    assert reply.headers["x-should-retry"] == should_retry
    assert reply.headers.get("retry-after") == retry_after


async def test_unforeseen_error_reveals_nothing(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """S45; more bodies: test_no_leaks."""

    def explode(request: GenerationRequest, sample: int) -> list[int]:
        raise ZeroDivisionError("secret at 0x7ffe in /home/user/engine.py")

    engine.script = explode
    reply = await client.post(CHAT, json=BODY)
    assert reply.status_code == 500
    assert reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["code"] == "internal_error"
    assert not re.search(r"secret|0x|/home|Traceback|\.py|ZeroDivision|litestar", reply.text)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/chat/completion", 404, "not_found"),
        ("GET", "/assets/..%2fapp.py", 404, "not_found"),
        ("GET", "/assets/app.py", 404, "not_found"),
        ("GET", "/" + "x" * 5000, 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_wrong_path_or_method_is_an_error_object(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    reply = await client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["code"] == code
    assert reply.headers["x-request-id"]
    assert len(reply.content) < 1000


@pytest.mark.parametrize(("path", "allowed"), [(CHAT, "POST"), ("/v1/models", "GET"), ("/health", "GET")])
async def test_405_and_options_name_the_allowed_methods(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    refused, options = await client.delete(path), await client.options(path)
    assert allowed in refused.headers["allow"]
    assert options.status_code == 204
    assert allowed in options.headers["allow"]


@pytest.mark.parametrize("path", ["/health/live", "/", "/docs", "/v1/models", "/openapi.json"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


class TestRequestId:
    @pytest.mark.parametrize("path", ["/health", "/nope", CHAT])
    async def test_harmless_id_is_returned(self, client: httpx.AsyncClient, path: str) -> None:
        reply = await client.get(path, headers={"x-request-id": "my.id_1-A"})
        assert reply.headers.get_list("x-request-id") == ["my.id_1-A"]

    @pytest.mark.parametrize("given", ["", "a b", "a" * 65, "\u00e9".encode(), "a\tb", '"}', "\x1b[31m", "x\u0000"])
    async def test_other_ids_are_replaced(self, client: httpx.AsyncClient, given: str | bytes) -> None:
        reply = await client.get(
            "/health", headers=[(b"x-request-id", given if isinstance(given, bytes) else given.encode())]
        )
        assert re.fullmatch(r"req_[0-9a-f]{32}", reply.headers["x-request-id"])

    async def test_streams_have_one_too(self, client: httpx.AsyncClient) -> None:
        reply = await client.post(CHAT, json=BODY | {"stream": True}, headers={"x-request-id": "s1"})
        assert reply.headers["x-request-id"] == "s1"
        assert int(reply.headers["openai-processing-ms"]) >= 0


class TestUnknownFields:
    async def test_too_many_to_list_are_counted(self, client: httpx.AsyncClient) -> None:
        reply = await client.post(CHAT, json=BODY | {f"x{number}": number for number in range(65)})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_parameter")
        assert "65" in reply.json()["error"]["message"]

    async def test_refused_with_the_nearest_known_name(self, client: httpx.AsyncClient) -> None:
        error = (await client.post(CHAT, json=BODY | {"temprature": 1})).json()["error"]
        assert error["code"] == "unknown_parameter"
        assert error["param"] == "temprature"
        assert "temperature" in error["message"]

    class TestIgnored:
        @pytest.fixture
        def settings(self) -> Settings:
            return Settings(server=ServerSettings(unknown_fields="ignore"))

        async def test_named_in_a_header(self, client: httpx.AsyncClient) -> None:
            reply = await client.post(CHAT, json=BODY | {"kv_transfer_params": 1, "a\r\nb: é": 2})
            assert reply.status_code == 200
            assert reply.headers["x-quire-ignored-fields"] == "kv_transfer_params, a%0D%0Ab%3A%20%C3%A9"

        async def test_header_is_bounded(self, client: httpx.AsyncClient) -> None:
            reply = await client.post(CHAT, json=BODY | {f"{number}" + "\U0001f600" * 60: 1 for number in range(60)})
            assert reply.status_code == 200
            assert len(reply.headers["x-quire-ignored-fields"]) == 2048

        async def test_no_header_when_all_is_known(self, client: httpx.AsyncClient) -> None:
            assert "x-quire-ignored-fields" not in (await client.post(CHAT, json=BODY)).headers


class TestWhoMayAsk:
    @pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2"])
    async def test_loopback_names_are_served(self, client: httpx.AsyncClient, host: str) -> None:
        assert (await client.get("/health", headers={"host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.com", "localhost.evil.com", "evil.com:8000", "127.0.0.1.evil.com", "localhost:x", "[::1", ""]
    )
    async def test_other_names_are_refused(self, client: httpx.AsyncClient, host: str) -> None:
        reply = await client.get("/health", headers={"host": host})
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "forbidden_origin"

    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize(
        "origin", ["http://evil.com", "null", "https://localhost.evil.com", "http://localhost:3000", "x", "http://["]
    )
    async def test_pages_of_other_sites_are_refused(self, client: httpx.AsyncClient, method: str, origin: str) -> None:
        reply = await client.request(method, "/v1/models", headers={"origin": origin})
        assert reply.status_code == 403

    async def test_own_page_is_served(self, client: httpx.AsyncClient) -> None:
        headers = {"host": "localhost:8000", "origin": "http://localhost:8000"}
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200

    class TestOnEveryAddress:
        @pytest.fixture
        def settings(self) -> Settings:
            return Settings(server=ServerSettings(host="0.0.0.0"))  # noqa: S104

        async def test_any_name_is_served(self, client: httpx.AsyncClient) -> None:
            assert (await client.get("/health", headers={"host": "models.example.org"})).status_code == 200


class TestSizes:
    async def test_too_many_headers_is_431(self, client: httpx.AsyncClient) -> None:
        headers = {f"x-{number}": "v" for number in range(65)}
        assert (await client.get("/health", headers=headers)).status_code == 431

    async def test_too_long_headers_is_431(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/health", headers={"x-long": "v" * 33_000})).status_code == 431

    async def test_too_long_uri_is_414(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/health?" + "q" * 9000)).status_code == 414

    class TestBody:
        @pytest.fixture
        def settings(self) -> Settings:
            return Settings(server=ServerSettings(max_body_bytes=200))

        async def test_declared_size_over_the_limit_is_413(self, client: httpx.AsyncClient) -> None:
            reply = await client.post(CHAT, json=BODY | {"user": "x" * 200})
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")

        async def test_size_over_the_limit_in_chunks_is_413(self, client: httpx.AsyncClient) -> None:
            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(30):
                    yield b" " * 10

            reply = await client.post(CHAT, content=chunks())
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")

        async def test_body_at_the_limit_is_served(self, client: httpx.AsyncClient) -> None:
            body = b'{"prompt": "a"}'
            assert (await client.post("/v1/completions", content=body.ljust(200))).status_code == 200


class TestSlowBody:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(server=ServerSettings(body_timeout_s=0.01))

    async def test_body_that_does_not_come_is_given_up(self, client: httpx.AsyncClient) -> None:
        async def stalled_body() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        async with asyncio.timeout(10):
            reply = await client.post(CHAT, content=stalled_body())
        assert (reply.status_code, reply.json()["error"]["code"]) == (408, "request_timeout")
        assert "after 0.01 s" in reply.json()["error"]["message"]


async def test_text_of_the_caller_cannot_pass_for_a_path(client: httpx.AsyncClient) -> None:
    messages = [{"role": "x` - at `$.model`", "content": "a"}]
    assert (await client.post(CHAT, json={"messages": messages})).json()["error"]["param"] == "messages[0].role"


def test_error_body_is_bounded_whatever_the_message() -> None:
    error = InvalidValue("x" * 10**6, param="p" * 10**6)
    assert len(encode_error(error)) < 2500
    assert error_headers(error)["x-should-retry"] == "false"
