"""The pages: complete, from this server only, and strict about what they may load."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

UI = Path(__file__).parents[2] / "src" / "service" / "ui"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


async def test_browser_gets_the_page(client: httpx.AsyncClient) -> None:
    reply = await client.get("/", headers=BROWSER)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["vary"] == "accept"
    assert "<title>Quire</title>" in reply.text


async def test_program_gets_a_description(client: httpx.AsyncClient) -> None:
    body = (await client.get("/", headers={"accept": "*/*"})).json()
    assert {"message", "version", "status", "endpoints", "docs"} < set(body)
    assert {"inference_queue_size", "active_connections"} < set(body)
    assert body["status"] == "healthy"
    assert "/v1/chat/completions" in body["endpoints"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_everything_a_page_needs_is_served_here(client: httpx.AsyncClient, path: str) -> None:
    page = (await client.get(path, headers=BROWSER)).text
    assets = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page)
    replies = [await client.get(asset) for asset in assets]
    assert len(assets) == 3
    assert [reply.status_code for reply in replies] == [200] * 3


@pytest.mark.parametrize("path", ["/", "/docs", "/assets/chat.js", "/assets/page.css", "/assets/icon.svg"])
async def test_policy_allows_this_server_only(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path, headers=BROWSER)).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(UI.iterdir()), ids=lambda path: path.name)
def test_no_file_loads_anything_remote(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//cdn|@import|[\s:]url\(", text)


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_hold_no_inline_code_or_style(name: str) -> None:
    text = (UI / name).read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("name", ["chat.js", "docs.js"])
def test_text_never_becomes_markup(name: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", (UI / name).read_text()
    )
