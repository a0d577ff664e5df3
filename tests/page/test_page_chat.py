"""A conversation on the page: it streams, stops, begins again, survives a reload, and works without a mouse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.page_steps import answer_with, ask, change_requests, say, settled, texts, wait_until

LONG = {"ignore_eos": True, "max_tokens": 1500}


def test_answer_streams_and_says_how_it_was_made(page: Any) -> None:
    assert len(ask(page, "What can you do?")) > 20
    figures = page.locator(".figures").inner_text()
    assert "tokens · " in figures
    assert "tokens/s" in figures
    assert "first after" in figures
    assert page.trouble == []


def test_second_turn_finds_the_first_in_the_cache(page: Any) -> None:
    ask(page, "My name is Ann and I like the sea and the ships on it very much.")
    ask(page, "What is my name?")
    assert "cached" in page.locator(".figures").last.inner_text()


def test_text_grows_while_it_comes(page: Any) -> None:
    change_requests(page, **LONG)
    say(page, "Tell me a story.")
    live = page.locator(".message.busy .text")
    wait_until(page, lambda: len(live.inner_text()) > 20)
    early = live.inner_text()
    wait_until(page, lambda: len(live.inner_text()) > len(early) + 50)
    wait_until(page, lambda: "tokens/s" in page.locator(".message.busy .status").inner_text())
    page.keyboard.press("Escape")


def test_escape_stops_and_what_came_is_kept(page: Any) -> None:
    change_requests(page, **LONG)
    say(page, "Tell me a story.")
    wait_until(page, lambda: len(page.locator(".message.busy .text").inner_text()) > 20)
    page.keyboard.press("Escape")
    stopped = settled(page)
    assert "stopped" in page.locator(".figures").inner_text()
    page.locator(".entry.current").wait_for()
    wait_until(page, lambda: page.locator("#send").count() == 1)
    page.reload()
    assert settled(page)[:20] == stopped[:20]


def test_stream_that_a_reload_cuts_is_kept_as_far_as_it_came(page: Any) -> None:
    change_requests(page, **LONG)
    say(page, "Tell me a story.")
    wait_until(page, lambda: len(page.locator(".message.busy .text").inner_text()) > 20)
    page.reload()
    page.locator(".message.assistant").wait_for()
    assert "stopped" in page.locator(".figures").inner_text()
    assert len(texts(page)) == 2


def test_regenerate_answers_the_same_message_anew(page: Any) -> None:
    sent = change_requests(page)
    ask(page, "Tell me a joke.")
    page.get_by_role("button", name="Answer again").click()
    wait_until(page, lambda: len(sent) == 2)
    settled(page)
    assert [body["messages"] for body in sent] == [[{"role": "user", "content": "Tell me a joke."}]] * 2
    page.wait_for_timeout(300)
    page.reload()
    settled(page)
    assert len(texts(page)) == 2


def test_edited_message_takes_the_place_of_all_that_came_after(page: Any) -> None:
    ask(page, "Name an animal.")
    ask(page, "Name another one.")
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit and start again from here").first.click()
    page.fill("#edited", "Name a colour.")
    page.keyboard.press("Enter")
    wait_until(page, lambda: texts(page)[0] == "Name a colour.")
    settled(page)
    assert len(texts(page)) == 2
    page.wait_for_timeout(300)
    page.reload()
    settled(page)
    assert texts(page)[0] == "Name a colour."
    assert len(texts(page)) == 2


def test_answer_can_be_copied(page: Any, context: Any, quire: Any) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=quire.address)
    answer_with(page, "**bold** and `code`")
    say(page, "Write something.")
    settled(page)
    page.locator(".message.assistant").get_by_role("button", name="Copy").click()
    page.get_by_text("Copied").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == "**bold** and `code`"


MARKDOWN = """\
# Title

Some *words* and `code`.

- one
- two

```python
print('hi')
```

| a | b |
|---|---|
| 1 | 2 |
"""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_markdown_comes_out_the_same_however_it_is_cut(page: Any, size: int) -> None:
    answer_with(page, *[MARKDOWN[at : at + size] for at in range(0, len(MARKDOWN), size)])
    say(page, "Write something.")
    settled(page)
    shown = page.locator(".message.assistant .text")
    tags = {name: shown.locator(name).count() for name in ("h3", "em", "li", "pre code", "td", "p")}
    assert tags == {"h3": 1, "em": 1, "li": 2, "pre code": 1, "td": 2, "p": 1}
    assert shown.locator("pre").inner_text().strip() == "print('hi')"


def test_closed_blocks_are_not_drawn_again(page: Any) -> None:
    change_requests(page, **LONG)
    page.evaluate(
        """() => { window.removed = 0; new MutationObserver((changes) => {
            for (const change of changes) if (change.target.classList?.contains("markdown"))
                window.removed = Math.max(window.removed, change.removedNodes.length);
        }).observe(document.body, { childList: true, subtree: true }); }"""
    )
    say(page, "Write a list of ten animals.")
    wait_until(page, lambda: len(page.locator(".message.busy .text").inner_text()) > 300)
    assert page.evaluate("window.removed") <= 2
    page.keyboard.press("Escape")


def test_refusal_is_told_and_can_be_tried_again(page: Any) -> None:
    error = '{"error": {"message": "The queue is full.", "type": "x", "param": null, "code": "queue_full"}}'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, body=error))
    say(page, "Hello.")
    page.get_by_role("alert").get_by_text("The queue is full.").wait_for()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    settled(page)
    assert len(texts(page)) == 2


def test_everything_works_from_the_keyboard(page: Any) -> None:
    page.keyboard.type("Hello!")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("What are you?")
    page.keyboard.press("Enter")
    settled(page)
    assert texts(page)[0] == "Hello!\nWhat are you?"
    page.keyboard.press("Control+Shift+O")
    wait_until(page, lambda: page.locator(".message").count() == 0)
    page.keyboard.press("ArrowUp")
    assert page.input_value("#prompt") == "Hello!\nWhat are you?"
    page.keyboard.press("Control+KeyK")
    wait_until(page, lambda: page.evaluate("document.activeElement.id") == "search")
    page.keyboard.press("Alt+Digit3")
    page.locator(".live-view").wait_for()
    page.keyboard.press("Alt+Digit1")
    page.keyboard.press("Control+Comma")
    page.get_by_role("dialog", name="Settings").wait_for()
    page.keyboard.press("Escape")
    wait_until(page, lambda: page.get_by_role("dialog").count() == 0)


def test_screen_reader_hears_the_answer_once_and_whole(page: Any) -> None:
    answer_with(page, "One ", "two ", "three.")
    say(page, "Count.")
    settled(page)
    region = page.locator('[aria-live="polite"]')
    wait_until(page, lambda: region.inner_text() == "Answer: One two three.")
