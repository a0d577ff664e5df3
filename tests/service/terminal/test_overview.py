"""`quire ps`: what runs comes first, then the queue in its turn, then the past; narrow windows get fewer columns."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from contracts.openai.models import ModelCard
from contracts.overview import Overview
from service.cli import main
from service.terminal.api_client import ApiClient
from service.terminal.overview import fetch_overview, why_now
from service.terminal.overview_table import draw_overview, format_seconds
from tests.service.terminal.live_looks import explanation
from tests.service.terminal.scripted_api import ScriptedApi, scripted_api
from tests.service.terminal.test_smoke_routes import CARD

REQUESTS = [
    explanation(5),
    explanation(4, status="queued", queue_position=2, main_cause="KV blocks exhausted"),
    explanation(3, status="queued", queue_position=1, main_cause="the batch was full"),
    explanation(2, status="running"),
    explanation(1, status="cancelled", finish_reason="abort"),
]


@pytest.fixture
def api() -> Any:
    listed = {"object": "list", "data": msgspec.to_builtins(REQUESTS)}
    with scripted_api(v1_models={"object": "list", "data": [CARD]}, v1_requests=listed) as api:
        yield api


def drawn(overview: Overview, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(draw_overview(overview, 1065.0, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def overview() -> Overview:
    return Overview(models=[msgspec.convert(CARD, ModelCard)], requests=REQUESTS)


def test_order_is_running_queue_past(api: ScriptedApi) -> None:
    with ApiClient(api.url) as client:
        found = fetch_overview(client, 7)
    assert [int(one.request_id) for one in found.requests] == [2, 3, 4, 5, 1]
    assert api.asked[-1].path == "/v1/requests?limit=7&order=newest"


@pytest.mark.parametrize(("number", "why"), [(1, "waits: KV blocks exhausted"), (3, "decode"), (4, "abort")])
def test_why(number: int, why: str) -> None:
    assert why_now(REQUESTS[number]) == why


def test_wide_window_shows_everything() -> None:
    lines = drawn(overview(), 140)
    assert lines[0].split() == ["MODEL", "STATE", "MEMORY", "CONTEXT", "LOADED", "IN"]
    assert lines[3].split() == ["ID", "MODEL", "STATE", "POS", "PROMPT", "CACHED", "NEW", "TOOK", "AGE", "WHY"]
    (queued,) = [line for line in lines if "KV blocks" in line]
    assert queued.split()[:5] == [f"cmpl-{4:032d}", "pico", "queued", "2", "10"]


@pytest.mark.parametrize("width", [30, 40, 56, 80, 100, 160])
def test_no_line_is_wider_than_the_window(width: int) -> None:
    lines = drawn(overview(), width)
    assert max(map(len, lines)) <= width
    assert [word for word in ("ID", "STATE", "AGE") if word not in lines[3]] == []
    assert len(lines) == 9


def test_empty_server_says_so() -> None:
    assert drawn(Overview(models=[], requests=[]), 80)[-1] == "No requests yet."


def test_command_prints_ids_whole_into_a_pipe(api: ScriptedApi) -> None:
    result = CliRunner().invoke(main, ["ps", "--base-url", api.url])
    assert result.exit_code == 0
    assert REQUESTS[0].id in result.stdout


def test_command_prints_json(api: ScriptedApi) -> None:
    result = CliRunner().invoke(main, ["ps", "--base-url", api.url, "--json"])
    assert [one.status for one in msgspec.json.decode(result.stdout, type=Overview).requests][:2] == [
        "running",
        "queued",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.25, "250 ms"), (4.21, "4.2 s"), (61, "1 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_seconds_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
