"""What the user sets holds over a reload and reaches the server; so do presets, models and what the model is told."""

from __future__ import annotations

from typing import Any

from contracts.presets import PRESETS
from tests.page.page_steps import ask, change_requests, wait_until


def test_preset_holds_over_a_reload_and_is_sent(page: Any) -> None:
    short = PRESETS["short-answer"]
    page.select_option("#preset", short.id)
    page.reload()
    page.locator("#preset").wait_for()
    assert page.input_value("#preset") == short.id
    sent = change_requests(page)
    ask(page, "Hello.")
    assert (sent[0]["temperature"], sent[0]["max_tokens"]) == (short.temperature, short.max_tokens)
    assert "top_p" not in sent[0]


def test_changed_field_makes_a_preset_ones_own(page: Any) -> None:
    page.select_option("#preset", "balanced")
    page.keyboard.press("Control+Comma")
    page.fill("#field-temperature", "1.3")
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.input_value("#preset") == "own"
    page.keyboard.press("Control+Comma")
    page.get_by_role("button", name="Deterministic").click()
    assert (page.input_value("#field-temperature"), page.input_value("#field-seed")) == ("0", "42")


def test_server_without_presets_is_no_trouble(page: Any) -> None:
    page.route("**/v1/presets", lambda route: route.fulfill(status=404, body="{}"))
    page.reload()
    page.locator(".dot.ok").wait_for()
    assert page.locator("#preset").count() == 0
    assert page.trouble == []


def test_seed_makes_the_answer_the_same(page: Any) -> None:
    page.keyboard.press("Control+Comma")
    page.fill("#field-seed", "42")
    page.keyboard.press("Escape")
    sent = change_requests(page)
    answers = []
    for _ in range(2):
        page.get_by_role("button", name="New chat").click()
        page.locator(".message").first.wait_for(state="detached")
        answers.append(ask(page, "Tell me a joke."))
        page.wait_for_timeout(200)
    assert answers[0] == answers[1]
    assert [body["seed"] for body in sent] == [42, 42]


def test_every_setting_is_kept_and_sent(page: Any) -> None:
    values = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "max_tokens": 32,
        "seed": 3,
    }
    page.keyboard.press("Control+Comma")
    for name, value in values.items():
        page.fill(f"#field-{name}", str(value))
    page.reload()
    page.locator(".dot.ok").wait_for()
    sent = change_requests(page)
    ask(page, "Hello.")
    assert {name: sent[0][name] for name in values} == values


def test_system_prompt_and_context_belong_to_their_conversation(page: Any) -> None:
    page.keyboard.press("Control+Comma")
    page.get_by_label("System prompt").fill("You are a pirate.")
    page.get_by_label("Context document").fill("The ship is red.")
    page.keyboard.press("Escape")
    ask(page, "Which colour is the ship?")
    address = page.url
    kept = page.evaluate("fetch('/v1/conversations/' + location.hash.slice(4)).then((reply) => reply.json())")
    assert kept["system_prompt"] == "You are a pirate.\n\n<context>\nThe ship is red.\n</context>"
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    page.goto(address)
    page.locator(".message.assistant").wait_for()
    page.keyboard.press("Control+Comma")
    assert page.get_by_label("System prompt").input_value() == "You are a pirate."
    assert page.get_by_label("Context document").input_value() == "The ship is red."


def test_other_model_is_loaded_with_its_progress_and_answers(page: Any) -> None:
    page.locator(".model-button").click()
    page.get_by_role("button", name="two").click()
    page.locator(".choice progress").wait_for()
    page.locator(".choice", has_text="two").locator(".state.ready").wait_for(timeout=60_000)
    page.keyboard.press("Escape")
    sent = change_requests(page)
    ask(page, "Hello.")
    assert sent[0]["model"] == "two"
    assert page.locator(".message.assistant .who").inner_text() == "two"
    page.reload()
    page.locator(".model-name", has_text="two").wait_for()
    assert page.locator(".model-button .badge").inner_text() == "chat"


def test_colours_are_remembered(page: Any) -> None:
    page.get_by_role("button", name="Dark colours").click()
    page.reload()
    wait_until(page, lambda: page.evaluate("document.documentElement.dataset.theme") == "dark")
