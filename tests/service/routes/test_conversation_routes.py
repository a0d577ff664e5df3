"""/v1/conversations over HTTP: what it answers, and what it says to nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import ServerSettings, Settings
from tests.fakes import FakeEngine, say
from tests.service.routes.conversation_client import CHAT, PATH, error_of, make, prompt_of, talk

KEYS = {"a": "sk-of-a-0123456789", "b": "sk-of-b-0123456789"}


async def test_conversation_lives_from_creation_to_deletion(client: httpx.AsyncClient) -> None:
    made = (await client.post(PATH, json={"system_prompt": "Be brief."})).json()
    assert made["object"] == "conversation"
    await talk(client, made["id"], "Hello there")
    renamed = (await client.patch(f"{PATH}/{made['id']}", json={"title": "Greeting"})).json()
    assert (renamed["title"], renamed["num_messages"]) == ("Greeting", 2)
    read = (await client.get(f"{PATH}/{made['id']}")).json()
    assert [message["content"] for message in read["messages"]] == ["Hello there", "Hello."]
    gone = (await client.delete(f"{PATH}/{made['id']}")).json()
    assert gone == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    assert error_of(await client.get(f"{PATH}/{made['id']}")) == (404, "conversation_not_found", "conversation")


async def test_list_has_the_shape_of_openais_lists(client: httpx.AsyncClient) -> None:
    made = [await make(client, title=f"T{number}") for number in range(3)]
    page = (await client.get(PATH, params={"limit": 2})).json()
    assert (page["object"], page["has_more"]) == ("list", True)
    rest = (await client.get(PATH, params={"limit": 2, "after": page["last_id"]})).json()
    assert {one["id"] for one in page["data"] + rest["data"]} == set(made)


async def test_empty_list_has_no_ids(client: httpx.AsyncClient) -> None:
    expected = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
    assert (await client.get(PATH)).json() == expected


async def test_search_finds_by_text(client: httpx.AsyncClient) -> None:
    made = await make(client)
    await talk(client, made, "100% wool")
    assert [one["id"] for one in (await client.get(PATH, params={"q": "0% W"})).json()["data"]] == [made]
    assert (await client.get(PATH, params={"q": "0_ w"})).json()["data"] == []


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"after": "conv_none"}, "after"),
        ({"after": "a\0b"}, "after"),
        ({"q": ""}, "q"),
        ({"q": "x" * 201}, "q"),
        ({"q": "a\0b"}, "q"),
        ({"offset": "3"}, "offset"),
    ],
)
async def test_bad_parameter_of_the_list_is_named(client: httpx.AsyncClient, params: Any, param: str) -> None:
    assert error_of(await client.get(PATH, params=params)) == (400, "invalid_value", param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"title": ""}, "invalid_value", "title"),
        ({"title": "  "}, "invalid_value", "title"),
        ({"title": "a\nb"}, "invalid_value", "title"),
        ({"title": "a\x1b[31mb"}, "invalid_value", "title"),
        ({"title": "a\u202eb"}, "invalid_value", "title"),
        ({"title": "x" * 201}, "invalid_value", "title"),
        ({"title": 3}, "invalid_value", "title"),
        ({"system_prompt": "a\0b"}, "invalid_value", "system_prompt"),
        ({"system_prompt": "x" * 65537}, "invalid_value", "system_prompt"),
        ({"max_turns": 0}, "invalid_value", "max_turns"),
        ({"max_turns": 1001}, "invalid_value", "max_turns"),
        ({"generation": {"temperature": 3}}, "invalid_value", "generation.temperature"),
        ({"generation": {"colour": 3}}, "unknown_parameter", "generation.colour"),
        ({"colour": 3}, "unknown_parameter", "colour"),
        ({"id": "conv_mine"}, "unknown_parameter", "id"),
        ([], None, None),
    ],
)
async def test_bad_field_is_named(client: httpx.AsyncClient, body: Any, code: str, param: str) -> None:
    assert error_of(await client.post(PATH, json=body)) == (400, code, param)


async def test_surrogate_in_a_title_is_refused(client: httpx.AsyncClient) -> None:
    reply = await client.post(PATH, content=b'{"title": "\\ud800"}')
    assert reply.status_code == 400


@pytest.mark.parametrize("bad_id", ["x", "conv_" + "0" * 32, "..", "%00", "a b", "💥", "x" * 3000, "'--"])
@pytest.mark.parametrize(("method", "end"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/export")])
async def test_id_that_is_none_is_not_found(client: httpx.AsyncClient, bad_id: str, method: str, end: str) -> None:
    reply = await client.request(method, f"{PATH}/{bad_id}{end}", json={} if method == "PATCH" else None)
    assert reply.status_code in {404, 405}
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_export_comes_back_as_it_went(client: httpx.AsyncClient) -> None:
    made = await make(client, system_prompt="Be brief.", model=None, max_turns=7, generation={"temperature": 0.5})
    await talk(client, made, "Grüße 🚋\n")
    exported = await client.get(f"{PATH}/{made}/export")
    assert exported.headers["content-disposition"] == f'attachment; filename="{made}.json"'
    file = exported.json()
    assert [message["role"] for message in file["messages"]] == ["system", "user", "assistant"]
    assert (file["max_length"], file["message_count"]) == (7, {"system": 1, "user": 1, "assistant": 1})
    imported = (await client.post(f"{PATH}/import", content=exported.content)).raise_for_status().json()
    again = (await client.get(f"{PATH}/{imported['id']}/export")).json()
    assert imported["id"] != made
    assert without_ids(again) == without_ids(file)


def without_ids(file: dict[str, Any]) -> dict[str, Any]:
    messages = [{name: value for name, value in one.items() if name != "id"} for one in file["messages"]]
    return file | {"id": None, "messages": messages}


async def test_imported_conversation_goes_on(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    file = {
        "id": "6f0b-uuid",
        "title": "Old\nchat...",
        "created_at": "2025-03-01T10:00:00.123456",
        "updated_at": "2025-03-01T10:01:00.123456",
        "max_length": 50,
        "messages": [
            {"id": "1", "role": "system", "content": "You like trees.", "timestamp": "2025-03-01T10:00:00.1"},
            {"id": "2", "role": "user", "content": "Name a tree.", "timestamp": "2025-03-01T10:00:30.1"},
            {"id": "3", "role": "assistant", "content": "Oak.", "timestamp": "2025-03-01T10:01:00.1"},
        ],
        "message_count": {"system": 1, "user": 1, "assistant": 1},
    }
    imported = (await client.post(f"{PATH}/import", json=file)).raise_for_status().json()
    assert (imported["title"], imported["created_at"]) == ("Old chat...", 1740823200)
    await talk(client, imported["id"], "Another.")
    assert prompt_of(engine) == [
        "system: You like trees.",
        "user: Name a tree.",
        "assistant: Oak.",
        "user: Another.",
        "assistant: ",
    ]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"messages": None}, "invalid_value", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a", "x": 1}]}, "unknown_parameter", "messages[0].x"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "invalid_value", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
            "invalid_value",
            "messages[1].role",
        ),
        ({"messages": [{"role": "user", "content": "a"}] * 4098}, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": "a", "timestamp": "soon"}]},
            "invalid_value",
            "messages[0].timestamp",
        ),
        ({"created_at": "0001-01-01"}, "invalid_value", "created_at"),
        ({"created_at": 17}, "invalid_value", "created_at"),
        ({"max_length": 0}, "invalid_value", "max_length"),
        ({"message_count": 2}, "invalid_value", "message_count"),
        ({"message_count": {"user": 2}}, "invalid_value", "message_count"),
        ({"colour": 1}, "unknown_parameter", "colour"),
    ],
)
async def test_bad_file_is_refused_by_the_place(
    client: httpx.AsyncClient, change: dict[str, Any], code: str, param: str
) -> None:
    file = {"messages": [{"role": "user", "content": "a"}]} | change
    status, found_code, found_param = error_of(await client.post(f"{PATH}/import", json=file))
    assert (status, found_code) == (400, code)
    assert str(found_param).startswith(param.partition("[")[0])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"messages": [' + b"[" * 1000, b"\xff\xfe"])
async def test_import_that_is_no_json_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    reply = await client.post(f"{PATH}/import", content=content)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_huge_import_is_refused(client: httpx.AsyncClient) -> None:
    file = {"messages": [{"role": "user", "content": "a" * (4 * 1024 * 1024 + 1)}]}
    assert error_of(await client.post(f"{PATH}/import", json=file)) == (400, "invalid_value", "messages")
    too_long = {"messages": [{"role": "user", "content": "a" * (8 * 1024 * 1024)}]}
    assert (await client.post(f"{PATH}/import", json=too_long)).status_code == 413


class TestWithKeys:
    """Each key is an owner."""

    @pytest.fixture
    def settings(self, database_path: Path) -> Settings:
        keys = ",".join(f"{label}={key}" for label, key in KEYS.items())
        return Settings(server=ServerSettings(conversations_db=str(database_path), api_keys=keys))

    async def test_another_keys_conversation_is_a_404_everywhere(
        self, client: httpx.AsyncClient, engine: FakeEngine
    ) -> None:
        of_a, of_b = ({"authorization": f"Bearer {KEYS[label]}"} for label in ("a", "b"))
        made = (await client.post(PATH, json={"title": "Mine"}, headers=of_a)).json()["id"]
        body = {"conversation": made, "messages": [{"role": "user", "content": "hi"}]}
        answers = [
            await client.get(f"{PATH}/{made}", headers=of_b),
            await client.get(f"{PATH}/{made}/export", headers=of_b),
            await client.patch(f"{PATH}/{made}", json={"title": "Yours"}, headers=of_b),
            await client.delete(f"{PATH}/{made}", headers=of_b),
            await client.post(CHAT, json=body, headers=of_b),
        ]
        assert {error_of(answer)[:2] for answer in answers} == {(404, "conversation_not_found")}
        assert (await client.get(PATH, headers=of_b)).json()["data"] == []
        assert (await client.get(f"{PATH}/{made}", headers=of_a)).json()["title"] == "Mine"
        assert engine.requests == []

    async def test_nothing_is_told_without_a_key(self, client: httpx.AsyncClient) -> None:
        assert (await client.get(PATH)).status_code == 401


class TestSwitchedOff:
    """--conversations-db none."""

    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(server=ServerSettings(conversations_db="none"))

    async def test_every_use_says_so(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        body = {"conversation": "conv_x", "messages": [{"role": "user", "content": "hi"}]}
        answers = [await client.get(PATH), await client.post(PATH, json={}), await client.post(CHAT, json=body)]
        assert {error_of(answer)[:2] for answer in answers} == {(404, "conversations_off")}
        assert engine.requests == []


class TestDeadDatabase:
    """The file's place is taken by a directory."""

    @pytest.fixture(autouse=True)
    def obstacle(self, database_path: Path) -> Path:
        database_path.mkdir(parents=True)
        return database_path

    async def test_every_use_says_so_and_the_rest_goes_on(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.script = say("Still here.")
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
        answers = [
            await client.get(PATH),
            await client.post(PATH, json={}),
            await client.get(f"{PATH}/conv_x"),
            await client.post(CHAT, json=body | {"conversation": "conv_x"}),
        ]
        assert {error_of(answer)[:2] for answer in answers} == {(503, "conversations_unavailable")}
        assert {answer.headers["retry-after"] for answer in answers} == {"2"}
        assert (await client.post(CHAT, json=body)).json()["choices"][0]["message"]["content"] == "Still here."
        assert (await client.get("/health/ready")).status_code == 200

    async def test_it_heals_by_itself(self, client: httpx.AsyncClient, obstacle: Path) -> None:
        assert (await client.get(PATH)).status_code == 503
        obstacle.rmdir()
        assert (await client.get(PATH)).status_code == 200


async def test_file_that_was_replaced_is_noticed(client: httpx.AsyncClient, database_path: Path) -> None:
    made = await make(client)
    database_path.rename(database_path.with_suffix(".old"))
    assert (await client.get(f"{PATH}/{made}")).status_code == 404
    again = await make(client)
    assert (await client.get(f"{PATH}/{again}")).status_code == 200


async def test_file_that_is_no_database_is_left_alone(client: httpx.AsyncClient, database_path: Path) -> None:
    database_path.parent.mkdir()
    database_path.write_bytes(b"a letter to my mother " * 100)
    assert error_of(await client.get(PATH))[:2] == (503, "conversations_unavailable")
    assert database_path.read_bytes().startswith(b"a letter")


async def test_database_is_for_its_user_alone(client: httpx.AsyncClient, database_path: Path) -> None:
    await make(client)
    assert database_path.stat().st_mode & 0o777 == 0o600
    assert database_path.parent.stat().st_mode & 0o777 == 0o700
