"""Every view can be used by everybody: axe finds nothing in either theme, and a phone is wide enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.page.page_steps import ask, import_conversation
from tests.shape_rules import ROOT

AXE = ROOT / "ops" / "page" / "node_modules" / "axe-core" / "axe.min.js"
TEXT = "\n\n".join(
    (
        "# Title",
        "Some `code`, a [link](https://example.com/) and",
        "```python\nprint(1)\n```",
        "> quoted",
        "| a | b |\n|---|---|\n| 1 | 2 |",
    )
)


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: make page fetches it")
    return AXE.read_text("utf-8")


def problems(page: Any, axe: str) -> list[str]:
    """What axe finds in light, and in dark as far as colours go, through the debugger: the page's policy keeps scripts
    of others out."""
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": axe})
    found: list[str] = []
    for theme, rules in (("light", ""), ("dark", "runOnly: ['color-contrast'],")):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(200)
        run = (
            f"axe.run(document, {{ {rules} resultTypes: ['violations'] }}).then((found) => found.violations.map("
            "(one) => one.id + ': ' + one.nodes.map((node) => node.target + ' ' + node.failureSummary).join(' | ')))"
        )
        reply = session.send("Runtime.evaluate", {"expression": run, "awaitPromise": True, "returnByValue": True})
        found += [f"{theme}: {problem}" for problem in reply["result"]["value"]]
    session.detach()
    return found


def test_axe_finds_nothing_in_either_theme(page: Any, axe: str, tmp_path: Path) -> None:
    found = {"new": problems(page, axe)}
    import_conversation(page, tmp_path, "For axe", "What is this?", TEXT)
    ask(page, "Hello.")
    found["chat"] = problems(page, axe)
    page.locator(".entry.current button").click()
    found["menu"] = problems(page, axe)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Comma")
    found["settings"] = problems(page, axe)
    page.keyboard.press("Escape")
    page.locator(".model-button").click()
    found["models"] = problems(page, axe)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Why?").last.click()
    page.locator(".waterfall li button").last.click()
    found["why"] = problems(page, axe)
    page.keyboard.press("Alt+Digit3")
    page.locator(".blocks canvas").wait_for()
    found["live"] = problems(page, axe)
    assert {view: told for view, told in found.items() if told} == {}


def test_axe_would_find_what_cannot_be_read(page: Any, axe: str) -> None:
    page.evaluate("document.querySelector('h3').style.color = '#ddd'")
    assert [problem.split(": ")[:2] for problem in problems(page, axe)] == [["light", "color-contrast"]]


@pytest.mark.parametrize("view", ["", "#/why", "#/live"])
def test_phone_shows_everything_without_scrolling_sideways(page: Any, quire: Any, view: str) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(f"{quire.address}/{view}")
    page.locator("#view").wait_for()
    page.wait_for_timeout(600)
    widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('#view').scrollWidth]")
    assert max(widths) <= 360


def test_conversations_lie_over_the_view_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    search = page.locator("#search")
    search.wait_for(state="hidden")
    page.get_by_role("button", name="Conversations").click()
    search.wait_for()
    page.keyboard.press("Escape")
    search.wait_for(state="hidden")


def test_nothing_moves_for_those_who_do_not_want_it(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).animationName !== 'none').length"
    )
    assert moving == 0
