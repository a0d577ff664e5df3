"""What a user does on the page, in a few words, for the tests of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHAT = "**/v1/chat/completions"


def say(page: Any, text: str) -> None:
    """Write and send; returns at once."""
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def ask(page: Any, text: str) -> str:
    """Write, send, and wait for the whole answer, known to the server."""
    num_before = page.locator(".message.assistant").count()
    say(page, text)
    page.locator(".message.assistant:not(.busy)").nth(num_before).wait_for()
    return settled(page)


def settled(page: Any) -> str:
    """The last answer, once it is whole."""
    page.locator(".message.busy").wait_for(state="detached")
    page.locator(".message.assistant .figures").last.wait_for()
    page.locator(".message.assistant").last.locator(".text > *").first.wait_for()  # drawn a frame later
    text: str = page.locator(".message.assistant .text").last.inner_text()
    return text


def texts(page: Any) -> list[str]:
    """Every message as it is read."""
    found: list[str] = page.locator(".message .text").all_inner_texts()
    return [text.strip() for text in found]


def change_requests(page: Any, **changes: Any) -> list[dict[str, Any]]:
    """Add fields to every chat request on its way; the list is what the page itself has sent."""
    sent: list[dict[str, Any]] = []

    def change(route: Any) -> None:
        body = json.loads(route.request.post_data)
        sent.append(body)
        route.continue_(post_data=json.dumps(body | changes))

    page.route(CHAT, change)
    return sent


def answer_with(page: Any, *pieces: str) -> None:
    """Let every chat request be answered with these pieces, whatever the server would say."""
    events = [
        {"id": "x", "model": "m", "choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    events.append({"id": "x", "model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route(CHAT, lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))


def import_conversation(page: Any, directory: Path, title: str, *contents: str) -> None:
    """Load a conversation whose messages are these, the user's first, and wait until it is shown."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    path = directory / "conversation.json"
    path.write_text(json.dumps({"title": title, "messages": messages}))
    page.set_input_files("#import-file", str(path))
    page.locator(".message .text").nth(len(contents) - 1).wait_for()


def entry(page: Any, title: str) -> Any:
    """The conversation's place in the list."""
    return page.locator(".entry", has_text=title).first


def choose_action(page: Any, title: str, action: str) -> None:
    """An action of the conversation's menu."""
    entry(page, title).hover()
    entry(page, title).get_by_role("button").click()
    page.get_by_role("menuitem", name=action).click()


def wait_until(page: Any, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Let the page go on until the condition holds."""
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come to pass")
