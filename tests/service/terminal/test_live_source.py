"""The live view is read until the monitor has enough; a server that goes away is waited for, a refusal is final."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from contracts.errors import QuireError, ServerUnreachable
from contracts.live import LiveView
from service.cli import main
from service.terminal import live_source
from service.terminal.api_client import ApiClient, RequestRefused
from service.terminal.background import in_background
from service.terminal.live_source import LiveSource, Lost
from tests.service.terminal.live_looks import look, row
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api

PATIENCE_S = 10.0
NAMED = "/v1/live?model=a%2Fb"


def events(*looks: LiveView) -> Answer:
    body = b"".join(b"data: " + msgspec.json.encode(one) + b"\n\n" for one in looks)
    return Answer(body=body, headers={"content-type": "text/event-stream"})


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api() as api:
        yield api


@pytest.fixture
def source(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveSource]:
    monkeypatch.setattr(live_source, "RETRY_S", 0.01)
    with ApiClient(api.url) as client:
        yield LiveSource(client, "a/b")


@pytest.fixture
def start(source: LiveSource) -> Iterator[Callable[[], None]]:
    """Begins to read, once the answers are there."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(in_background("quire-live", source.read))


def next_of(source: LiveSource) -> LiveView | Lost | QuireError:
    return source.news.get(timeout=PATIENCE_S)


def test_looks_come_in_order_and_the_end_is_told(
    api: ScriptedApi, source: LiveSource, start: Callable[[], None]
) -> None:
    api.answers["GET /v1/live"] = events(look(1.0), look(2.0))
    start()
    first, second, end = (next_of(source) for _ in range(3))
    assert isinstance(first, LiveView)
    assert isinstance(second, LiveView)
    assert isinstance(end, Lost)
    assert (second.at, api.asked[0].path) == (2.0, NAMED)


def test_server_that_is_away_is_asked_again(api: ScriptedApi, source: LiveSource, start: Callable[[], None]) -> None:
    body = msgspec.json.encode({"error": {"message": "The server is still starting.", "code": "starting"}})
    api.answers["GET /v1/live"] = Answer(status=503, body=body)
    start()
    assert next_of(source) == Lost(reason="The server is still starting.")
    api.answers["GET /v1/live"] = events(look(3.0))
    news: Any = next(one for one in iter(lambda: next_of(source), None) if isinstance(one, LiveView))
    assert news.at == 3.0


def test_key_that_may_not_look_is_final(api: ScriptedApi, source: LiveSource, start: Callable[[], None]) -> None:
    body = msgspec.json.encode({"error": {"message": "It lacks the scope.", "code": "insufficient_scope"}})
    api.answers["GET /v1/live"] = Answer(status=403, body=body)
    start()
    assert isinstance(next_of(source), RequestRefused)


def test_other_servers_view_is_final(api: ScriptedApi, source: LiveSource, start: Callable[[], None]) -> None:
    api.answers["GET /v1/live"] = Answer(body=b"data: {}\n\n", headers={"content-type": "text/event-stream"})
    start()
    assert isinstance(next_of(source), ServerUnreachable)


def test_pipe_gets_one_plain_snapshot(api: ScriptedApi) -> None:
    api.answers["GET /v1/live"] = events(look(1.0), look(2.0, [row(1)]))
    result = CliRunner().invoke(main, ["monitor", "--base-url", api.url])
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)
    assert "1 of 8" in result.stdout


def test_snapshot_of_nothing_is_an_error() -> None:
    result = CliRunner().invoke(main, ["monitor", "--once", "--base-url", "http://127.0.0.1:9"])
    assert (result.exit_code, "Nothing answers" in result.stderr) == (6, True)
