"""The pages: complete, from this server only, small, and strict about what they may load."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx
import pytest

from service.routes.pages import POLICY

UI = Path(__file__).parents[2] / "src" / "service" / "ui"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MAX_BUNDLE_BYTES = 100_000
"""Script and style of the page, compressed."""


async def test_browser_gets_the_page(client: httpx.AsyncClient) -> None:
    reply = await client.get("/", headers=BROWSER)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "accept" in reply.headers["vary"].split(", ")
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


@pytest.mark.parametrize("path", ["/", "/docs", "/assets/page.js", "/assets/page.css", "/assets/icon.svg"])
async def test_policy_allows_this_server_only(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path, headers=BROWSER)).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"


def test_policy_names_no_other_place_and_nothing_unsafe() -> None:
    sources = {source for directive in POLICY.split("; ") for source in directive.split()[1:]}
    assert sources == {"'none'", "'self'", "data:", "'script'", "dompurify"}
    assert "img-src 'self' data:" in POLICY.split("; ")


@pytest.mark.parametrize("name", ["page.js", "page.css", "NOTICE.txt"])
async def test_large_files_are_compressed_for_those_who_can_read_it(client: httpx.AsyncClient, name: str) -> None:
    packed = await client.get(f"/assets/{name}", headers={"accept-encoding": "gzip"})
    plain = await client.get(f"/assets/{name}", headers={"accept-encoding": "identity"})
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == (UI / name).read_bytes()


async def test_file_that_the_browser_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    tag = (await client.get("/assets/page.js")).headers["etag"]
    again = await client.get("/assets/page.js", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = await client.get("/assets/page.js", headers={"if-none-match": 'W/"0123456789abcdef"'})
    assert other.status_code == 200


def test_page_is_small() -> None:
    sizes = {name: len(gzip.compress((UI / name).read_bytes())) for name in ("page.js", "page.css", "index.html")}
    assert sum(sizes.values()) <= MAX_BUNDLE_BYTES, sizes


@pytest.mark.parametrize("package", ["preact", "marked", "dompurify", "uplot", "eventsource-parser", "@preact/signals"])
def test_licence_of_what_is_bundled_goes_with_it(package: str) -> None:
    assert re.search(rf"^{package} [0-9.]+ \(", (UI / "NOTICE.txt").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["index.html", "docs.html", "docs.js", "page.css", "icon.svg"])
def test_no_file_of_ours_loads_anything_remote(name: str) -> None:
    text = (UI / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//cdn|@import|[\s:]url\(", text)


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_hold_no_inline_code_or_style(name: str) -> None:
    text = (UI / name).read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


SOURCES = [*sorted((UI.parents[2] / "ops" / "page" / "src").glob("*.ts*")), UI / "docs.js"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_text_never_becomes_markup_of_itself(path: Path) -> None:
    """What is markup comes from the sanitiser, as a fragment; the policy keeps the packages to it as well."""
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|dangerously"
    assert not re.search(forbidden, path.read_text())
