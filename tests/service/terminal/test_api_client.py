"""The client of the terminal commands: addresses, keys, and every failure as a sentence with its remedy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from contracts.errors import ServerUnreachable, SettingsError
from contracts.presets import PRESETS, PresetList
from service.terminal.api_client import ApiClient, ConnectionLost, RequestRefused, is_loopback, root_of
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api

ERROR = (
    b'{"error":{"message":"Too busy.","type":"overloaded_error","param":null,"code":"queue_full"},"status_code":503}'
)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api(v1_presets=PresetList(data=list(PRESETS.values()))) as running:
        yield running


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://host/llm/v1", "https://host/llm"),
        ("localhost:8001", "http://localhost:8001"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_address_is_taken_with_or_without_v1(given: str, root: str) -> None:
    assert root_of(given) == root


@pytest.mark.parametrize("given", ["", "ftp://h", "http://", "http://h:port", "http://h:0", "http://h?x=1"])
def test_address_that_is_none_is_refused_by_name(given: str) -> None:
    with pytest.raises(SettingsError, match="--base-url"):
        root_of(given)


@pytest.mark.parametrize(
    ("url", "is_own"),
    [("http://127.0.0.2:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("http://10.0.0.1", False)],
)
def test_own_addresses_are_known(url: str, is_own: bool) -> None:
    assert is_loopback(url) == is_own


def test_replies_are_typed_and_the_key_is_sent(api: ScriptedApi) -> None:
    with ApiClient(api.url + "/v1", "secret") as client:
        assert client.get_json("/v1/presets", PresetList, {"a": 1}).data == list(PRESETS.values())
    assert api.asked[0].path == "/v1/presets?a=1"
    assert api.asked[0].headers["authorization"] == "Bearer secret"


def test_body_is_sent_as_json(api: ScriptedApi) -> None:
    api.answers["POST /v1/x"] = Answer(body=b'{"y": 2}')
    api.answers["DELETE /v1/x"] = Answer(body=b"[]")
    with ApiClient(api.url) as client:
        assert client.post_json("/v1/x", {"x": 1}, dict[str, int]) == {"y": 2}
        assert client.delete("/v1/x", list[Any]) == []
    assert [(asked.method, asked.body) for asked in api.asked] == [("POST", {"x": 1}), ("DELETE", None)]
    assert api.asked[0].headers["content-type"] == "application/json"


def test_proxies_of_the_environment_are_not_asked_for_loopback(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with ApiClient(api.url) as client:
        client.get_json("/v1/presets", PresetList)
    assert [asked.path for asked in api.asked] == ["/v1/presets"]


def test_nobody_there_names_the_address_and_the_command() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with ApiClient(url) as client, pytest.raises(ServerUnreachable, match="quire serve") as caught:
            client.get_json("/health", dict[str, Any])
    assert url in caught.value.message


def test_refusal_has_the_words_of_the_server(api: ScriptedApi) -> None:
    api.answers["GET /v1/models"] = Answer(status=503, body=ERROR, headers={"retry-after": "7"})
    with ApiClient(api.url) as client, pytest.raises(RequestRefused) as caught:
        client.get_json("/v1/models", dict[str, Any])
    refused = caught.value
    assert (refused.message, refused.status, refused.code, refused.retry_after_s) == ("Too busy.", 503, "queue_full", 7)


def test_refusal_in_other_words_is_quoted(api: ScriptedApi) -> None:
    with ApiClient(api.url) as client, pytest.raises(RequestRefused, match="status 404: no such"):
        client.get_json("/elsewhere", dict[str, Any])


def test_missing_key_names_the_variable(api: ScriptedApi) -> None:
    api.answers["GET /x"] = Answer(status=401, body=b'{"error": {"message": "No key."}}')
    with ApiClient(api.url) as client, pytest.raises(RequestRefused, match=r"No key\. .*OPENAI_API_KEY"):
        client.get_json("/x", dict[str, Any])


def test_key_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        ApiClient("h", "schlüssel")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"\xff"])
def test_answer_of_another_program_is_told(api: ScriptedApi, body: bytes) -> None:
    api.answers["GET /v1/presets"] = Answer(body=body)
    with ApiClient(api.url) as client, pytest.raises(ServerUnreachable, match="Is it a Quire server"):
        client.get_json("/v1/presets", PresetList)


def test_reply_that_breaks_off_is_told(api: ScriptedApi) -> None:
    api.answers["GET /x"] = Answer(is_whole=False)
    with ApiClient(api.url) as client, pytest.raises(ConnectionLost, match="broke while it answered"):
        client.get_json("/x", dict[str, Any])


def test_stream_ends_at_done(api: ScriptedApi) -> None:
    api.answers["POST /s"] = Answer(
        body=b": hi\n\nid: 4\ndata: {}\n\nevent: end\ndata: a\ndata: b\n\ndata: [DONE]\n\ndata: late\n\n",
        headers={"x-request-id": "r1"},
    )
    with ApiClient(api.url) as client, client.stream("POST", "/s", {"stream": True}) as events:
        assert [tuple(event) for event in events] == [("message", "4", "{}"), ("end", None, "a\nb")]
        assert events.headers["x-request-id"] == "r1"
    assert api.asked[0].headers["accept"] == "text/event-stream"


def test_error_in_a_stream_is_raised_behind_what_came(api: ScriptedApi) -> None:
    api.answers["GET /s"] = Answer(body=b"data: 1\n\ndata: " + ERROR + b"\n\n")
    with ApiClient(api.url) as client, client.stream("GET", "/s") as events:
        received = iter(events)
        assert next(received).data == "1"
        with pytest.raises(RequestRefused, match="Too busy"):
            next(received)


def test_stream_that_breaks_off_is_told(api: ScriptedApi) -> None:
    api.answers["GET /s"] = Answer(body=b"data: 1\n\n", is_whole=False)
    with (
        ApiClient(api.url) as client,
        pytest.raises(ConnectionLost, match="Has the server stopped"),
        client.stream("GET", "/s") as events,
    ):
        list(events)


def test_leaving_a_stream_closes_its_connection(api: ScriptedApi) -> None:
    api.answers["GET /s"] = Answer(body=b"data: 1\n\n", is_held=True)
    with ApiClient(api.url) as client, client.stream("GET", "/s") as events:
        assert next(iter(events)).data == "1"
    assert api.left.wait(5.0)
