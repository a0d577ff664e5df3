"""POST /v1/models/{id}/load, /unload and /default: who may, what is accepted, and what is told while it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from contracts.errors import NotEnoughMemory
from contracts.frames import ErrorReport, ModelOrder, SupervisorBound
from contracts.settings import ServerSettings, Settings
from service.app import build_app
from tests.service.pool_worker import Worker, state
from tests.service.scripted_engine import PATIENCE_S

EVENTS = {"accept": "text/event-stream"}
SCOPES = {"infer": ["infer"], "metrics": ["metrics"], "admin": ["infer", "metrics", "admin"]}
TOO_LARGE = "The model 'two' needs 4 GiB; the budget has 2 GiB left."


class Desk(Worker):
    """A pool whose supervisor obeys at once; `two` loads in stages, or fails where it is too large."""

    is_two_too_large = False
    is_deaf = False

    def hear(self, message: SupervisorBound) -> None:
        """As the supervisor."""
        super().hear(message)
        if isinstance(message, ModelOrder) and not self.is_deaf:
            asyncio.get_running_loop().create_task(self._obey(message))

    async def _obey(self, order: ModelOrder) -> None:
        if order.verb == "load":
            await self._load(order)
        elif order.verb == "unload":
            self.tell(**{order.alias: state("unloaded")})
        else:
            self.table = msgspec.structs.replace(self.table, default_alias=order.alias)
            self.tell()
        self.pool.orders.settle(order.number, None)

    async def _load(self, order: ModelOrder) -> None:
        if self.table.get(order.alias).phase.value == "ready":
            return
        await asyncio.sleep(0.02)
        for stage in ("making room", "reading weights"):
            self.tell(**{order.alias: state("loading", stage=stage, fraction=0.5)})
            await asyncio.sleep(0.02)
        if self.is_two_too_large:
            self.tell(two=state("failed", error=TOO_LARGE))
            self.pool.orders.settle(order.number, ErrorReport.of(NotEnoughMemory(TOO_LARGE)))
        else:
            engine = await self.engine(order.alias.replace("/", "-"))
            self.tell(**{order.alias: state("ready", engine, load_s=1.5)})

    @property
    def orders(self) -> list[tuple[str, str, float | None]]:
        """What was ordered, but for the loads before a default."""
        return [(one.verb, one.alias, one.timeout_s) for one in self.said if isinstance(one, ModelOrder)]


@pytest.fixture
async def desk(tmp_path: Path, model_path: Path) -> AsyncIterator[Desk]:
    """`first` is loaded and the default; three keys of different scopes."""
    keys = tmp_path / "keys.toml"
    tables = [
        f'[[keys]]\nlabel = "{scope}"\nkey = "sk-{scope}-0123456789"\nscopes = {scopes}\n'
        for scope, scopes in SCOPES.items()
    ]
    keys.write_text("".join(tables))
    keys.chmod(0o600)
    desk = Desk(tmp_path, model_path)
    desk.settings = Settings(server=ServerSettings(api_keys_file=str(keys)))
    pool = await desk.start(first=state("ready", await desk.engine("first")))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    yield desk
    await desk.close()


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """With the key of an admin."""
    app = build_app(desk.settings, desk.pool)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    headers = {"authorization": "Bearer sk-admin-0123456789"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client


def events_of(reply: httpx.Response) -> list[Any]:
    """The JSON of each event; the last may be [DONE]."""
    texts = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    return [text if text == "[DONE]" else msgspec.json.decode(text) for text in texts]


# ---- who may


@pytest.mark.parametrize("scope", ["infer", "metrics"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/two/load",
        "/v1/models/two/unload",
        "/v1/models/two/default",
        "/v1/models/two%2Fload",
        "/v1/models%2Ftwo/load",
        "/v1//models//two//load",
        "/v1/models/",
        "/v1/models/two/reboot",
    ],
)
async def test_key_without_admin_may_not_order(http: httpx.AsyncClient, desk: Desk, scope: str, path: str) -> None:
    reply = await http.post(path, headers={"authorization": f"Bearer sk-{scope}-0123456789"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_scope")
    assert desk.orders == []


async def test_key_that_may_infer_may_read(http: httpx.AsyncClient) -> None:
    headers = {"authorization": "Bearer sk-infer-0123456789"}
    cards = (await http.get("/v1/models", headers=headers)).json()["data"]
    assert [(card["id"], card["state"], card["is_default"]) for card in cards] == [
        ("first", "ready", True),
        ("two", "unloaded", False),
        ("org/three", "unloaded", False),
    ]
    assert (await http.get("/v1/models/org/three", headers=headers)).json() == cards[2]
    assert (await http.head("/v1/models/two", headers=headers)).status_code == 200


@pytest.mark.parametrize("key", ["", "Bearer sk-wrong"])
async def test_nobody_orders_without_a_key(http: httpx.AsyncClient, desk: Desk, key: str) -> None:
    reply = await http.post("/v1/models/two/load", headers={"authorization": key})
    assert (reply.status_code, desk.orders) == (401, [])


# ---- what is done


async def test_load_answers_with_the_card_of_the_loaded_model(http: httpx.AsyncClient, desk: Desk) -> None:
    reply = await http.post("/v1/models/two/load")
    card = reply.json()
    assert (reply.status_code, card["id"], card["state"], card["load_s"]) == (200, "two", "ready", 1.5)
    assert (card["kind"], card["max_model_len"], card["progress"], card["error"]) == ("chat", 4096, None, None)
    assert desk.orders == [("load", "two", None)]
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["org/three/load", "org%2Fthree/load", "org%2Fthree%2Fload", "org/three/load/"])
async def test_id_with_a_slash_is_loaded(http: httpx.AsyncClient, desk: Desk, path: str) -> None:
    assert (await http.post(f"/v1/models/{path}")).json()["id"] == "org/three"
    assert desk.orders == [("load", "org/three", None)]


async def test_default_moves_after_the_load(http: httpx.AsyncClient, desk: Desk) -> None:
    card = (await http.post("/v1/models/two/default", json={})).json()
    assert (card["id"], card["state"], card["is_default"]) == ("two", "ready", True)
    assert [verb for verb, _, _ in desk.orders] == ["load", "default"]
    assert not (await http.get("/v1/models/first")).json()["is_default"]


@pytest.mark.parametrize(
    ("options", "timeout_s"),
    [({}, None), ({"timeout_s": 0}, 0.0), ({"timeout_s": 2.5}, 2.5), ({"timeout_s": None}, None)],
)
async def test_unload_passes_its_time_on(
    http: httpx.AsyncClient, desk: Desk, options: dict[str, Any], timeout_s: float | None
) -> None:
    reply = await http.post("/v1/models/first/unload", json=options)
    assert (reply.status_code, reply.json()["state"]) == (200, "unloaded")
    assert desk.orders == [("unload", "first", timeout_s)]


async def test_failed_load_says_why(http: httpx.AsyncClient, desk: Desk) -> None:
    desk.is_two_too_large = True
    reply = await http.post("/v1/models/two/default")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_load_failed")
    assert reply.json()["error"]["message"] == TOO_LARGE
    card = (await http.get("/v1/models/two")).json()
    assert (card["state"], card["error"], card["is_default"]) == ("failed", TOO_LARGE, False)
    assert (await http.get("/v1/models/first")).json()["is_default"]


# ---- stages as events


async def test_stages_of_a_load_are_events(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/models/two/load", headers=EVENTS)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *cards, last = events_of(reply)
    assert last == "[DONE]"
    assert (cards[0]["state"], cards[-1]["state"]) == ("unloaded", "ready")
    stages = [card["progress"] for card in cards if card["progress"]]
    assert {"stage": "making room", "fraction": 0.5} in stages
    assert {"stage": "reading weights", "fraction": 0.5} in stages


async def test_load_of_what_is_loaded_ends_at_once(http: httpx.AsyncClient) -> None:
    *cards, last = events_of(await http.post("/v1/models/first/load", headers=EVENTS))
    assert ({card["state"] for card in cards}, last) == ({"ready"}, "[DONE]")


async def test_failed_load_ends_the_events_with_its_reason_each_time(http: httpx.AsyncClient, desk: Desk) -> None:
    desk.is_two_too_large = True
    first = events_of(await http.post("/v1/models/two/load", headers=EVENTS))
    second = events_of(await http.post("/v1/models/two/load", headers=EVENTS))
    assert [events[-1]["error"]["message"] for events in (first, second)] == [TOO_LARGE] * 2
    assert (first[0]["state"], second[0]["state"]) == ("unloaded", "failed")


@pytest.mark.parametrize("headers", [EVENTS, {}])
async def test_drain_ends_an_order_under_way(http: httpx.AsyncClient, desk: Desk, headers: dict[str, str]) -> None:
    desk.is_deaf = True
    ordering = asyncio.create_task(http.post("/v1/models/two/load", headers=headers))
    async with asyncio.timeout(PATIENCE_S):
        while not desk.orders:
            await asyncio.sleep(0.01)
        await desk.pool.drain(10.0)
        reply = await ordering
    assert "shutting_down" in reply.text


# ---- what is refused


@pytest.mark.parametrize("path", ["two/reboot", "two", "load", "two/load/now", "two/LOAD"])
async def test_verb_that_is_none_is_not_found(http: httpx.AsyncClient, desk: Desk, path: str) -> None:
    reply = await http.post(f"/v1/models/{path}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert "load, unload and default" in reply.json()["error"]["message"]
    assert desk.orders == []


@pytest.mark.parametrize("name", ["four", "/etc/passwd", "..%2F..%2Fmodel", "openai-community/gpt2", "Two", "%00"])
@pytest.mark.parametrize("verb", ["load", "unload", "default"])
async def test_model_that_nobody_declared_is_not_found(
    http: httpx.AsyncClient, desk: Desk, name: str, verb: str
) -> None:
    reply = await http.post(f"/v1/models/{name}/{verb}", json={})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert desk.orders == []


@pytest.mark.parametrize(
    ("verb", "body", "param"),
    [
        ("load", '{"timeout_s": 1}', "timeout_s"),
        ("default", '{"path": "/etc"}', "path"),
        ("unload", '{"timeout_s": -1}', "timeout_s"),
        ("unload", '{"timeout_s": "soon"}', "timeout_s"),
        ("unload", '{"timeout_s": 1e9}', "timeout_s"),
        ("unload", '{"timeout": 1}', "timeout"),
        ("unload", "[]", None),
        ("unload", "7", None),
        ("unload", "{", None),
        ("load", "nonsense", None),
        ("load", "null", None),
    ],
)
async def test_body_that_says_nothing_known_is_refused_by_name(
    http: httpx.AsyncClient, desk: Desk, verb: str, body: str, param: str | None
) -> None:
    headers = {"content-type": "application/json"}
    reply = await http.post(f"/v1/models/two/{verb}", content=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert desk.orders == []


async def test_form_of_another_page_is_refused(http: httpx.AsyncClient, desk: Desk) -> None:
    reply = await http.post("/v1/models/two/load", content=b"a=b", headers={"content-type": "text/plain"})
    assert (reply.status_code, desk.orders) == (415, [])


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_other_methods_change_nothing(http: httpx.AsyncClient, desk: Desk, method: str) -> None:
    assert (await http.request(method, "/v1/models/two/load")).status_code == 405
    assert desk.orders == []


# ---- the rest of the API while nothing is loaded


@pytest.mark.parametrize(
    "path", ["/health", "/healthz", "/readyz", "/stats", "/metrics", "/v1/models", "/v1/requests", "/", "/docs"]
)
async def test_everything_answers_while_no_model_is_loaded(http: httpx.AsyncClient, path: str) -> None:
    await http.post("/v1/models/first/unload")
    assert (await http.get(path)).status_code == 200


async def test_numbers_are_null_while_the_default_is_not_loaded(http: httpx.AsyncClient) -> None:
    await http.post("/v1/models/two/load")
    await http.post("/v1/models/first/unload")
    stats, health = (await http.get("/stats")).json(), (await http.get("/health")).json()
    assert (stats["engine"], stats["info"], list(stats["models"])) == (None, None, ["two"])
    assert (health["status"], health["model"], health["models"]["first"]) == ("healthy", None, "unloaded")
    assert 'quire_model_state{model="two",state="ready"} 1.0' in (await http.get("/metrics")).text


async def test_request_does_not_wait_for_a_model_beyond_its_time(http: httpx.AsyncClient) -> None:
    body = {"model": "two", "prompt": "hi"}
    reply = await http.post("/v1/completions", json=body, headers={"x-request-timeout": "0.2"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "deadline_exceeded")
    assert "retry-after" in reply.headers
