"""Nothing is served without a key once keys are configured, whatever the path looks like; scopes are kept apart."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, Request, get

from contracts.generation import Tenant
from contracts.settings import ServerSettings, Settings
from service.api_keys import ANONYMOUS, ApiKey, KeyScope
from service.app import create_app
from service.authorization import PUBLIC_PATHS, SCOPE_OF_PREFIX, is_public, needed_scope, presented_key
from service.key_store import KeyStore
from service.middleware import RequestContext
from service.overload_gate import OverloadGate
from tests.fakes import FakeEngine
from tests.service.asgi_calls import HeaderList, ask, bearer

KEY = "sk-canary-0123456789"
FILE_KEYS = {scope: f"sk-{scope}-only-0123456789" for scope in ("infer", "admin", "metrics")}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "F!SH"]
REFUSAL = b"This server needs an API key: send it as 'authorization: Bearer KEY'."


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    tables = [f'[[keys]]\nlabel = "{scope}"\nkey = "{key}"\nscopes = ["{scope}"]\n' for scope, key in FILE_KEYS.items()]
    path.write_text("".join(tables))
    path.chmod(0o600)
    return path


@pytest.fixture
def settings(keys_file: Path) -> Settings:
    return Settings(server=ServerSettings(api_keys=f"all={KEY}", api_keys_file=str(keys_file)))


@pytest.fixture
def app(settings: Settings, engine: FakeEngine) -> Litestar:
    return create_app(settings, engine)


def example_of(template: str) -> str:
    return re.sub(r"\{\w+:\w+\}", "x", template)


def spellings(path: str) -> list[str]:
    """Ways to write a path that a careless check and a router might understand differently."""
    encoded = "".join(f"%{ord(character):02x}" if character.isalnum() else character for character in path)
    return [
        path,
        f"{path}/",
        f"/{path}",
        f"//{path}//",
        path.replace("/", "//"),
        path.replace("/", "/./"),
        f"/x/..{path}",
        path.upper(),
        encoded,
        f"/%2f{path[1:]}",
        f"{path}%00",
        f"{path};a=b",
        f"{path}?a=/healthz",
        f"{path}/../healthz",
        f"/healthz/..{path}",
        f"{path}%20",
    ]


class TestInventory:
    @pytest.mark.parametrize("method", METHODS)
    async def test_every_spelling_of_every_route_is_refused_without_a_key(self, app: Litestar, method: str) -> None:
        paths = {
            spelling
            for route in app.routes
            if route.path not in PUBLIC_PATHS
            for spelling in spellings(example_of(route.path))
        }
        statuses = {path: (await ask(app, path, method)).status for path in paths}
        assert {path: status for path, status in statuses.items() if status != 401} == {}
        assert len(statuses) > 100

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(
        "path", ["*", "", "/nope", "/v1/nope", "/docs/x", "/schema", "/metric", "/admin", "/livez"]
    )
    async def test_unknown_paths_are_refused_alike(self, app: Litestar, method: str, path: str) -> None:
        assert (await ask(app, path, method)).status == 401

    @pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
    async def test_public_paths_need_no_key(self, app: Litestar, path: str) -> None:
        assert (await ask(app, path)).status != 401

    def test_public_paths_are_these_and_no_others(self) -> None:
        assert {"/health/live", "/healthz", "/health/ready", "/readyz"} == PUBLIC_PATHS

    @pytest.mark.parametrize(
        "path",
        ["/healthz/", "//healthz", "/Healthz", "/healthz ", "/healthz/x", "/health/live/x", "/health", "healthz"],
    )
    async def test_near_misses_of_public_paths_need_a_key(self, app: Litestar, path: str) -> None:
        assert (await ask(app, path)).status == 401

    @given(st.text())
    def test_any_other_path_needs_a_scope_or_at_least_a_key(self, path: str) -> None:
        assert is_public(path) is (path in PUBLIC_PATHS)
        assert needed_scope(path) in {"infer", "admin", "metrics", None}
        assert (needed_scope(path) is None) is (path.strip("/").split("/")[0] == "health")

    async def test_websocket_is_closed_before_the_application_sees_it(self, app: Litestar) -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {"type": "websocket", "path": "/v1/models", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


class TestPresenting:
    @pytest.mark.parametrize(
        "value",
        [
            f"Bearer {KEY}".encode(),
            f"bearer {KEY}".encode(),
            f"BEARER   {KEY}  ".encode(),
            b"Basic " + base64.b64encode(f":{KEY}".encode()),
            b"basic " + base64.b64encode(f"anyone:{KEY}".encode()),
        ],
    )
    async def test_key_is_accepted_as_token_or_password(self, app: Litestar, value: bytes) -> None:
        assert (await ask(app, "/openapi.json", headers=[(b"authorization", value)])).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(b"authorization", b"")],
            [(b"authorization", b"Bearer")],
            [(b"authorization", b"Bearer ")],
            [(b"authorization", KEY.encode())],
            [(b"authorization", f"Bearer{KEY}".encode())],
            [(b"authorization", f"Token {KEY}".encode())],
            [(b"authorization", f"Bearer {KEY}x".encode())],
            [(b"authorization", f"Bearer {KEY[:-1]}".encode())],
            [(b"authorization", f"Bearer {KEY.upper()}".encode())],
            [(b"authorization", f'Bearer "{KEY}"'.encode())],
            [(b"authorization", f"Bearer {KEY}, Bearer {KEY}".encode())],
            [(b"authorization", f"Bearer {KEY} {KEY}".encode())],
            [(b"authorization", b"Bearer " + b"\xff\xfe\x00")],
            [(b"authorization", f"Bearer {KEY}\x00".encode())],
            [(b"authorization", f"Bearer {KEY}\xa0".encode("latin-1"))],
            [(b"authorization", b"Bearer ' OR 1=1; DROP TABLE keys; --")],
            [(b"authorization", b"Bearer " + b"x" * 2**20)],
            [(b"authorization", b"Basic " + b"A" * 2**20)],
            [(b"authorization", b"Bearer sha256:" + hashlib.sha256(KEY.encode()).hexdigest().encode())],
            [(b"authorization", b"Basic " + KEY.encode())],
            [(b"authorization", b"Basic " + base64.b64encode(KEY.encode()))],
            [(b"authorization", b"Basic " + base64.b64encode(f"{KEY}:".encode()))],
            [(b"authorization", b"Basic =" + base64.b64encode(f":{KEY}".encode()))],
            [(b"authorization", b"Basic " + base64.b64encode(b":\xff"))],
            [bearer(KEY), bearer(KEY)],
            [bearer(KEY), bearer("x" * 20)],
            [bearer("x" * 20), bearer(KEY)],
            [(b"x-api-key", KEY.encode())],
            [(b"api-key", KEY.encode())],
            [(b"proxy-authorization", f"Bearer {KEY}".encode())],
            [(b"cookie", f"authorization=Bearer {KEY}".encode())],
        ],
        ids=lambda headers: str(headers)[:60],
    )
    async def test_everything_else_gets_the_same_401(self, app: Litestar, headers: HeaderList) -> None:
        reply = await ask(app, "/v1/models", headers=headers)
        reference = await ask(app, "/nope")
        assert (reply.status, reply.body) == (401, reference.body)
        assert REFUSAL in reply.body
        assert reply.error["code"] == "invalid_api_key"
        assert reply.values("www-authenticate") == ["Bearer"]
        assert reply.values("x-should-retry") == ["false"]
        assert reply.values("cache-control") == ["no-store"]

    @pytest.mark.parametrize("query", [f"api_key={KEY}", f"key={KEY}", f"access_token={KEY}"])
    async def test_key_in_the_url_is_no_key(self, app: Litestar, query: str) -> None:
        assert (await ask(app, f"/v1/models?{query}")).status == 401

    @pytest.mark.parametrize(
        ("method", "path", "accept", "expected"),
        [
            ("GET", "/", b"text/html,application/xhtml+xml,*/*;q=0.8", 'Basic realm="quire"'),
            ("HEAD", "/docs", b"text/html", 'Basic realm="quire"'),
            ("GET", "/", b"*/*", "Bearer"),
            ("GET", "/v1/models", b"application/json", "Bearer"),
            ("POST", "/v1/completions", b"text/html", "Bearer"),
        ],
    )
    async def test_browsers_that_open_a_page_are_asked_for_a_password(
        self, app: Litestar, method: str, path: str, accept: bytes, expected: str
    ) -> None:
        reply = await ask(app, path, method, headers=[(b"accept", accept)])
        assert (reply.status, reply.values("www-authenticate")) == (401, [expected])

    @pytest.mark.parametrize("scheme", [b"Bearer ", b"Basic "])
    def test_huge_header_is_not_even_taken_apart(self, scheme: bytes) -> None:
        assert presented_key([(b"authorization", scheme + b"QUFB" * 2000)]) is None

    @given(st.binary(max_size=64))
    def test_no_header_breaks_the_reading(self, value: bytes) -> None:
        for scheme in (b"", b"Basic ", b"Bearer "):
            found = presented_key([(b"authorization", scheme + value)])
            assert found is None or isinstance(found, bytes)


class TestScopes:
    @pytest.fixture
    def inner(self) -> list[ApiKey]:
        return []

    @pytest.fixture
    def guarded(self, settings: Settings, inner: list[ApiKey]) -> Any:
        """A router with one path of each kind behind the real middleware."""

        @get(
            ["/v1/models", "/metrics", "/stats", "/admin", "/admin/models/{name:str}", "/health"], sync_to_thread=False
        )
        def serve(request: Request[Any, Any, Any]) -> None:
            inner.append(request.scope["state"]["api_key"])

        app = Litestar([serve], openapi_config=None)
        app.asgi_handler = RequestContext(
            app.asgi_handler, settings.server, KeyStore.open(settings.server), OverloadGate()
        )
        return app

    @pytest.mark.parametrize("scope", ["infer", "admin", "metrics"])
    @pytest.mark.parametrize(
        ("path", "needed"),
        [
            ("/v1/models", "infer"),
            ("/metrics", "metrics"),
            ("/stats", "metrics"),
            ("/admin", "admin"),
            ("/admin/models/a", "admin"),
            ("/health", None),
        ],
    )
    async def test_each_path_wants_its_scope_in_every_spelling_that_is_routed(
        self, guarded: Any, path: str, needed: str | None, scope: KeyScope
    ) -> None:
        served = await _served(guarded, spellings(path), FILE_KEYS[scope])
        routed = await _served(guarded, spellings(path), KEY)
        assert len(routed) >= 4
        assert served == (routed if needed in (scope, None) else set())

    @pytest.mark.parametrize(
        ("path", "needed"), [("/metrics", "metrics"), ("/stats/x", "metrics"), ("/admin/x", "admin")]
    )
    async def test_403_names_the_scope_and_the_label_only(self, app: Litestar, path: str, needed: str) -> None:
        reply = await ask(app, path, headers=[bearer(FILE_KEYS["infer"])])
        assert (reply.status, reply.error["code"]) == (403, "insufficient_scope")
        assert f"'{needed}'" in reply.error["message"]
        assert "'infer'" in reply.error["message"]
        assert FILE_KEYS["infer"] not in reply.body.decode()

    def test_table_holds_first_parts_of_paths(self) -> None:
        assert [part for part in SCOPE_OF_PREFIX if "/" in part or part != part.lower()] == []

    async def test_the_key_is_known_inside(self, guarded: Any, inner: list[ApiKey]) -> None:
        await ask(guarded, "/v1/models", headers=[bearer(FILE_KEYS["infer"])])
        assert inner == [ApiKey(label="infer", scopes=frozenset({"infer"}), tenant=Tenant(name="infer"))]


async def _served(app: Any, paths: list[str], key: str) -> set[str]:
    """The paths that are answered with 200 for the key."""
    return {path for path in paths if (await ask(app, path, headers=[bearer(key)])).status == 200}


class TestWithoutKeys:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings()

    async def test_nothing_is_asked_for(self, app: Litestar) -> None:
        assert (await ask(app, "/openapi.json")).status == 200
        assert ANONYMOUS.scopes == {"infer", "admin", "metrics"}

    async def test_any_key_of_other_servers_is_let_through(self, app: Litestar) -> None:
        assert (await ask(app, "/openapi.json", headers=[bearer("unused")])).status == 200


class TestLog:
    @pytest.fixture
    def lines(self) -> Iterator[list[Any]]:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            yield lines

    @pytest.fixture
    async def known(self, client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
        client.headers["authorization"] = f"Bearer {FILE_KEYS['infer']}"
        yield client

    async def test_lines_of_a_request_carry_the_label(self, known: httpx.AsyncClient, lines: list[Any]) -> None:
        await known.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
        await known.get("/v1/models/nope")
        assert [(line["event"], line["key"]) for line in lines] == [
            ("request_finished", "infer"),
            ("request_refused", "infer"),
        ]

    async def test_label_does_not_outlive_its_request(self, known: httpx.AsyncClient, lines: list[Any]) -> None:
        await known.get("/v1/models")
        structlog.get_logger().info("afterwards")
        assert "key" not in lines[-1]

    async def test_refusal_is_logged_without_the_key(self, app: Litestar, lines: list[Any]) -> None:
        await ask(app, "/v1/models", headers=[bearer(KEY + "x")])
        assert [(line["event"], line["status"], line["path"]) for line in lines] == [
            ("request_refused", 401, "/v1/models")
        ]
        assert "canary" not in str(lines)
