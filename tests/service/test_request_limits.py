"""What the key and the headers of a request allow reaches the engine; the body cannot change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidValue
from contracts.generation import Tenant
from contracts.settings import ServerSettings, Settings
from service.routes.request_limits import read_timeout
from tests.fakes import FakeEngine

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
COMPLETION = ("/v1/completions", {"prompt": ["a", "b"]})
BOTH = pytest.mark.parametrize(("path", "body"), [CHAT, COMPLETION], ids=["chat", "completions"])
KEYS = {"team-a": "sk-team-a-0123456789", "team-b": "sk-team-b-0123456789"}


class TestTenant:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        path = tmp_path / "keys.toml"
        path.write_text(
            f'[[keys]]\nlabel = "team-a"\nkey = "{KEYS["team-a"]}"\nweight = 2.5\nrequests_per_minute = 9\n'
            f'tokens_per_minute = 1000\nmax_concurrency = 3\n[[keys]]\nlabel = "team-b"\nkey = "{KEYS["team-b"]}"\n'
        )
        path.chmod(0o600)
        return Settings(server=ServerSettings(api_keys_file=str(path)))

    async def send(self, client: httpx.AsyncClient, path: str, body: Any, label: str) -> httpx.Response:
        return await client.post(path, json=body, headers={"authorization": f"Bearer {KEYS[label]}"})

    @BOTH
    async def test_requests_run_as_the_tenant_of_their_key(
        self, client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any
    ) -> None:
        await self.send(client, path, body, "team-a")
        await self.send(client, path, body, "team-b")
        team_a = Tenant(name="team-a", weight=2.5, requests_per_minute=9, tokens_per_minute=1000, max_concurrency=3)
        tenants = [request.tenant for request in engine.requests]
        half = len(tenants) // 2
        assert tenants == [team_a] * half + [Tenant(name="team-b")] * half

    @BOTH
    async def test_each_key_has_a_salt_of_its_own_that_is_no_label(
        self, client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any
    ) -> None:
        for label in ("team-a", "team-b", "team-a"):
            await self.send(client, path, body, label)
        salts = [request.cache_salt for request in engine.requests]
        count = len(salts) // 3
        assert salts[:count] == salts[-count:]
        assert len(set(salts)) == 2
        assert [salt for salt in salts if len(salt) != 64 or "team" in salt] == []

    @BOTH
    @pytest.mark.parametrize("name", ["cache_salt", "tenant", "user_id"])
    async def test_body_cannot_name_a_tenant_or_salt(
        self, client: httpx.AsyncClient, path: str, body: Any, name: str
    ) -> None:
        reply = await self.send(client, path, body | {name: "team-b"}, "team-a")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)


@BOTH
async def test_without_keys_all_are_one_tenant(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any
) -> None:
    await client.post(path, json=body)
    assert {(request.tenant, request.cache_salt) for request in engine.requests} == {(Tenant(), "")}


class TestTimeout:
    @BOTH
    @pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("2.5", 2.5), ("0.001", 0.001), ("86400", 86400.0)])
    async def test_header_becomes_the_deadline(
        self, client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any, text: str, seconds: float
    ) -> None:
        reply = await client.post(path, json=body, headers={"x-request-timeout": text})
        assert reply.status_code == 200
        assert {request.timeout_s for request in engine.requests} == {seconds}

    @BOTH
    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "0.0",
            "-1",
            "86400.1",
            "99999",
            "1e3",
            "nan",
            "inf",
            "abc",
            "",
            "1 2",
            "+1",
            "1s",
            "0x10",
            "1,5",
            "1_0",
            "\u0661",
        ],
    )
    async def test_other_values_are_refused_by_name_before_the_body_is_read(
        self, client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any, text: str
    ) -> None:
        reply = await client.post(path, content=b"no JSON", headers=[(b"x-request-timeout", text.encode())])
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], error["code"]) == (400, "x-request-timeout", "invalid_value")
        assert "x-request-timeout" in error["message"]
        assert engine.requests == []

    async def test_two_headers_are_refused(self, client: httpx.AsyncClient) -> None:
        headers = [("x-request-timeout", "5"), ("x-request-timeout", "6")]
        assert (await client.post(CHAT[0], json=CHAT[1], headers=headers)).status_code == 400

    @given(st.lists(st.text(max_size=20), min_size=1, max_size=2))
    def test_whatever_is_accepted_is_a_possible_deadline(self, values: list[str]) -> None:
        try:
            seconds = read_timeout(values)
        except InvalidValue:
            return
        assert seconds is not None
        assert 0 < seconds <= 86_400

    class TestWithSetting:
        @pytest.fixture
        def settings(self) -> Settings:
            return Settings(server=ServerSettings(request_timeout_s=10.0))

        @BOTH
        @pytest.mark.parametrize(("header", "expected"), [("5", 5.0), ("20", 10.0), (None, 10.0)])
        async def test_the_smaller_bound_wins(
            self,
            client: httpx.AsyncClient,
            engine: FakeEngine,
            path: str,
            body: Any,
            header: str | None,
            expected: float,
        ) -> None:
            headers = {} if header is None else {"x-request-timeout": header}
            await client.post(path, json=body, headers=headers)
            assert {request.timeout_s for request in engine.requests} == {expected}
