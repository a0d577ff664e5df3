"""Why and Live: the account of a request, and the engine at work while it is."""

from __future__ import annotations

from typing import Any

from tests.page.page_steps import ask, change_requests, say, wait_until

LONG = {"ignore_eos": True, "max_tokens": 1500}


def test_why_leads_from_an_answer_to_its_phases(page: Any) -> None:
    ask(page, "What can you do?")
    page.get_by_role("link", name="Why?").click()
    page.locator(".waterfall").wait_for()
    names = page.locator(".waterfall .name").all_inner_texts()
    assert {"prefill", "decode"} <= set(names)
    assert "prompt tokens" in page.locator(".summary").inner_text()
    page.locator(".waterfall li button").last.click()
    page.locator(".details").get_by_text("steps", exact=True).wait_for()


def test_why_of_an_unknown_request_says_so(page: Any, quire: Any) -> None:
    page.goto(f"{quire.address}/#/why/nobody")
    page.get_by_role("alert").get_by_text("No request 'nobody' is remembered").wait_for()


def test_running_request_can_be_cancelled(page: Any) -> None:
    change_requests(page, **LONG)
    say(page, "Tell me a story.")
    page.locator(".message.busy .text p").first.wait_for()
    page.keyboard.press("Alt+Digit2")
    page.locator(".requests .state.running").first.click()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".explained .state.cancelled").wait_for()


def test_jaeger_is_linked_where_the_server_knows_it(page: Any) -> None:
    def add_link(route: Any) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, json=reply.json() | {"trace_url": "http://jaeger.example/trace/1"})

    ask(page, "Hello.")
    page.route("**/v1/requests/*", add_link)
    page.get_by_role("link", name="Why?").click()
    link = page.get_by_role("link", name="Trace in Jaeger")
    link.wait_for()
    assert link.get_attribute("href") == "http://jaeger.example/trace/1"


def test_live_shows_the_batch_and_whose_the_blocks_are(page: Any) -> None:
    change_requests(page, **LONG)
    say(page, "Tell me a story.")
    page.locator(".message.busy .text p").first.wait_for()
    page.keyboard.press("Alt+Digit3")
    page.locator(".live-view tbody tr").first.wait_for()
    assert page.locator(".live-view tbody tr td").nth(1).inner_text() == "decode"
    label = page.locator(".blocks canvas").get_attribute("aria-label")
    assert "are held by 1 sequence" in label
    wait_until(page, lambda: page.locator(".uplot").count() == 3)
    assert page.trouble == []


def test_live_is_paused_and_scrubbed(page: Any) -> None:
    page.keyboard.press("Alt+Digit3")
    slider = page.get_by_role("slider", name="The last minute")
    wait_until(page, lambda: int(slider.get_attribute("max")) >= 6)
    page.get_by_role("button", name="Pause").click()
    held = int(slider.get_attribute("max"))
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    assert "before the pause" in page.locator(".when").inner_text()
    page.wait_for_timeout(700)
    assert int(slider.get_attribute("max")) == held
    page.get_by_role("button", name="Go on").click()
    wait_until(page, lambda: int(slider.get_attribute("max")) > held)
    assert page.locator(".when").inner_text() == "Live"


def test_engine_is_asked_only_while_the_view_is_open(page: Any) -> None:
    page.keyboard.press("Alt+Digit3")
    page.locator(".blocks canvas").wait_for()
    closed = []
    page.on("requestfailed", lambda request: closed.append(request.url))
    page.keyboard.press("Alt+Digit1")
    wait_until(page, lambda: any(address.endswith("/v1/live") for address in closed))
