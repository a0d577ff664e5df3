"""Pages may use the server only from its own address or a literally listed one; preflights need no key."""

from __future__ import annotations

import base64

import pytest
from litestar import Litestar

from contracts.errors import SettingsError
from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.cors import ALLOWED_METHODS, OriginPolicy
from tests.fakes import FakeEngine
from tests.service.asgi_calls import HeaderList, Reply, ask, bearer

KEY = "sk-canary-0123456789"
LISTED = "https://chat.example.org"
OTHERS = [
    "http://evil.com",
    "null",
    "",
    "*",
    "x",
    "http://[",
    "http://chat.example.org",
    "https://chat.example.org:8443",
    "https://chat.example.org.evil.com",
    "https://chatxexample.org",
    "https://chat.example.org/",
    "https://CHAT.example.org",
    "https://localhost.evil.com",
    "http://localhost:3000",
    "ftp://localhost",
    "file://",
    f"{LISTED}, http://evil.com",
]
ANYWHERE = "0.0.0.0"  # noqa: S104
ASK_LEAVE = (b"access-control-request-method", b"POST")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def app_with(engine: FakeEngine, server: ServerSettings) -> Litestar:
    return create_app(Settings(server=server), engine)


def origin(value: str) -> tuple[bytes, bytes]:
    return (b"origin", value.encode("latin-1"))


def cors_headers(reply: Reply) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in reply.headers if name.startswith(b"access-control")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "server",
    [
        ServerSettings(),
        ServerSettings(cors_origins=LISTED),
        ServerSettings(api_keys=KEY),
        ServerSettings(host=ANYWHERE, api_keys=KEY, cors_origins=LISTED),
        ServerSettings(host=ANYWHERE, insecure_no_auth=True),
    ],
    ids=["loopback", "loopback with list", "loopback with key", "beyond with key and list", "beyond without key"],
)
@pytest.mark.parametrize("extra", [[], [ASK_LEAVE]], ids=["plain", "preflight"])
async def test_other_origins_are_403_on_every_method(
    engine: FakeEngine, method: str, server: ServerSettings, extra: HeaderList
) -> None:
    """With the right key too, as bearer or as the password that a browser adds by itself."""
    app = app_with(engine, server)
    basic = (b"authorization", b"Basic " + base64.b64encode(f"x:{KEY}".encode()))
    replies = [
        await ask(app, "/openapi.json", method, headers=[origin(other), key, *extra])
        for other in OTHERS
        for key in (bearer(KEY), basic)
    ]
    assert [reply.status for reply in replies] == [403] * len(replies)
    assert [cors_headers(reply) for reply in replies] == [{}] * len(replies)


@pytest.mark.parametrize(
    "headers",
    [
        [origin(LISTED), origin(LISTED)],
        [origin(LISTED), origin("http://evil.com")],
        [origin("http://localhost"), origin("http://evil.com")],
    ],
)
async def test_several_origins_are_403(engine: FakeEngine, headers: HeaderList) -> None:
    assert (await ask(app_with(engine, ServerSettings(cors_origins=LISTED)), "/health", headers=headers)).status == 403


class TestOwnPage:
    @pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
    async def test_own_page_is_served(self, engine: FakeEngine, host: str) -> None:
        headers = [(b"host", host.encode()), origin(f"http://{host}")]
        assert (await ask(app_with(engine, ServerSettings()), "/openapi.json", headers=headers)).status == 200

    @pytest.mark.parametrize(("scheme", "status"), [("http", 200), ("https", 200)])
    async def test_a_proxy_may_have_taken_the_tls_off(self, engine: FakeEngine, scheme: str, status: int) -> None:
        headers = [origin(f"{scheme}://localhost")]
        assert (await ask(app_with(engine, ServerSettings()), "/openapi.json", headers=headers)).status == status

    @pytest.mark.parametrize(("scheme", "status"), [("http", 403), ("https", 200)])
    async def test_over_tls_a_plain_page_of_the_same_name_is_another(
        self, engine: FakeEngine, scheme: str, status: int
    ) -> None:
        headers = [origin(f"{scheme}://localhost")]
        app = app_with(engine, ServerSettings())
        assert (await ask(app, "/openapi.json", headers=headers, scheme="https")).status == status

    async def test_no_host_and_no_origin_do_not_match(self, engine: FakeEngine) -> None:
        app = app_with(engine, ServerSettings(host=ANYWHERE, insecure_no_auth=True))
        headers = [(b"host", b""), origin("http://")]
        assert (await ask(app, "/openapi.json", headers=headers)).status == 403


class TestListedOrigin:
    @pytest.fixture(params=["127.0.0.1", ANYWHERE])
    def app(self, engine: FakeEngine, request: pytest.FixtureRequest) -> Litestar:
        server = ServerSettings(host=request.param, api_keys=KEY, cors_origins=f"http://a.lan:3000, {LISTED}")
        return app_with(engine, server)

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/nope", "/healthz"])
    async def test_preflight_is_answered_without_a_key(self, app: Litestar, path: str) -> None:
        asked = (b"access-control-request-headers", b"authorization,content-type,x-stainless-os,x-evil")
        reply = await ask(app, path, "OPTIONS", headers=[origin(LISTED), ASK_LEAVE, asked])
        assert (reply.status, reply.body) == (204, b"")
        allowed = cors_headers(reply)
        names = allowed.pop("access-control-allow-headers").split(", ")
        assert {"authorization", "content-type", "x-request-timeout", "x-stainless-os"} <= set(names)
        assert "x-evil" not in names
        assert allowed.pop("access-control-expose-headers")
        assert allowed == {
            "access-control-allow-origin": LISTED,
            "access-control-allow-methods": "GET, HEAD, POST, PATCH, DELETE",
            "access-control-max-age": "600",
        }
        assert "Origin" in reply.values("vary")

    @pytest.mark.parametrize("headers", [[], [origin(LISTED)], [ASK_LEAVE], [origin("http://localhost"), ASK_LEAVE]])
    async def test_options_that_is_no_preflight_of_a_listed_page_needs_a_key(
        self, app: Litestar, headers: HeaderList
    ) -> None:
        assert (await ask(app, "/v1/models", "OPTIONS", headers=headers)).status == 401

    @pytest.mark.parametrize("listed", ["http://a.lan:3000", LISTED])
    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            ("/openapi.json", [bearer(KEY)], 200),
            ("/openapi.json", [], 401),
            ("/nope", [bearer(KEY)], 404),
            ("/openapi.json", [bearer(KEY), (b"x-long", b"v" * 33_000)], 431),
        ],
    )
    async def test_page_can_read_replies_and_refusals(
        self, app: Litestar, listed: str, path: str, headers: HeaderList, status: int
    ) -> None:
        reply = await ask(app, path, headers=[origin(listed), *headers])
        assert reply.status == status
        assert cors_headers(reply) == {
            "access-control-allow-origin": listed,
            "access-control-expose-headers": "x-request-id, retry-after",
        }
        assert reply.values("vary") == ["Origin"]

    async def test_replies_without_an_origin_say_that_it_matters(self, app: Litestar) -> None:
        reply = await ask(app, "/openapi.json", headers=[bearer(KEY)])
        assert (cors_headers(reply), reply.values("vary")) == ({}, ["Origin"])

    async def test_the_page_keeps_its_own_vary(self, app: Litestar) -> None:
        reply = await ask(app, "/", headers=[bearer(KEY), (b"accept", b"text/html")])
        assert sorted(reply.values("vary")) == ["Origin", "accept, accept-encoding"]

    def test_every_method_that_is_served_may_be_asked_for(self, app: Litestar) -> None:
        served = {method for route in app.routes for method in route.methods}
        assert served - {"OPTIONS"} <= set(ALLOWED_METHODS.split(", "))


async def test_without_a_list_nothing_is_said(engine: FakeEngine) -> None:
    reply = await ask(app_with(engine, ServerSettings()), "/openapi.json")
    assert (cors_headers(reply), reply.values("vary")) == ({}, [])


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "null",
        "https://*.example.org",
        "https://a.org/",
        "https://a.org/x",
        "a.org",
        "https://a b",
        "https://",
        "^x$",
    ],
)
def test_entry_that_is_no_literal_origin_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="--cors-origins holds"):
        OriginPolicy(f"https://good.org,{entry}")


@pytest.mark.parametrize("entry", ["https://a.org", "http://localhost:3000", "http://[::1]:80", "tauri://localhost"])
def test_entry_is_an_origin_as_browsers_send_it(entry: str) -> None:
    assert OriginPolicy(entry.upper()).check([origin(entry)], "localhost", "http") == entry


@pytest.mark.parametrize(
    "codings",
    [["gzip, chunked"], ["gzip", "chunked"], ["chunked", "chunked"], ["identity"], ["chunked, chunked"], [""]],
)
async def test_body_framed_in_another_way_ends_the_connection(engine: FakeEngine, codings: list[str]) -> None:
    headers = [(b"transfer-encoding", coding.encode()) for coding in codings]
    reply = await ask(app_with(engine, ServerSettings(api_keys=KEY)), "/v1/completions", "POST", headers=headers)
    assert (reply.status, reply.error["code"], reply.values("connection")) == (400, "bad_framing", ["close"])


async def test_chunked_body_is_let_through(engine: FakeEngine) -> None:
    headers = [(b"transfer-encoding", b"Chunked")]
    assert (await ask(app_with(engine, ServerSettings()), "/openapi.json", headers=headers)).status == 200
