"""Kept conversations on the page: found, renamed, saved, loaded, cleared, removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.page.page_steps import ask, choose_action, entry, import_conversation, texts, wait_until


def test_conversation_is_listed_and_opened_again(page: Any) -> None:
    ask(page, "Tell me about lighthouses.")
    entry(page, "Tell me about lighthouses.").wait_for()
    before = texts(page)
    page.get_by_role("button", name="New chat").click()
    wait_until(page, lambda: texts(page) == [])
    entry(page, "Tell me about lighthouses.").locator("a").click()
    wait_until(page, lambda: texts(page) == before)
    assert "#/c/conv_" in page.url


def test_search_finds_what_was_said(page: Any, tmp_path: Path) -> None:
    import_conversation(
        page, tmp_path, "About the harbour", "Where do the ships sleep?", "In the harbour, under xylophones."
    )
    page.fill("#search", "xylophones")
    wait_until(page, lambda: page.locator(".entry").all_inner_texts() == ["About the harbour"])
    page.fill("#search", "no such word at all")
    page.get_by_text("Nothing is found.").wait_for()


def test_conversation_is_renamed(page: Any, tmp_path: Path) -> None:
    import_conversation(page, tmp_path, "Old name", "a", "b")
    choose_action(page, "Old name", "Rename")
    page.get_by_role("textbox", name="Title").fill("New name")
    page.keyboard.press("Enter")
    entry(page, "New name").wait_for()
    page.reload()
    entry(page, "New name").wait_for()


def test_conversation_is_deleted_after_a_question(page: Any, tmp_path: Path) -> None:
    import_conversation(page, tmp_path, "To be removed", "a", "b")
    choose_action(page, "To be removed", "Delete")
    page.get_by_role("button", name="Delete").click()
    entry(page, "To be removed").wait_for(state="detached")
    wait_until(page, lambda: page.url.endswith("#/"))
    assert texts(page) == []


def test_conversation_is_cleared_and_stays(page: Any, tmp_path: Path) -> None:
    import_conversation(page, tmp_path, "To be cleared", "a", "b")
    choose_action(page, "To be cleared", "Clear")
    page.get_by_role("button", name="Clear", exact=True).click()
    wait_until(page, lambda: texts(page) == [])
    assert entry(page, "To be cleared").count() == 1


def test_export_can_be_imported(page: Any, tmp_path: Path) -> None:
    import_conversation(page, tmp_path, "There and back", "What is *this*?", "It is **that**.")
    with page.expect_download() as download:
        choose_action(page, "There and back", "Export")
    saved = tmp_path / "saved.json"
    download.value.save_as(saved)
    assert json.loads(saved.read_text())["title"] == "There and back"
    choose_action(page, "There and back", "Delete")
    page.get_by_role("button", name="Delete").click()
    entry(page, "There and back").wait_for(state="detached")
    page.set_input_files("#import-file", str(saved))
    wait_until(page, lambda: texts(page) == ["What is *this*?", "It is that."])


def test_broken_file_is_refused_with_the_servers_words(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"messages": "none"}')
    page.set_input_files("#import-file", str(path))
    page.get_by_role("alert").get_by_text("messages").wait_for()


def test_menu_is_used_with_arrows_and_left_with_escape(page: Any, tmp_path: Path) -> None:
    import_conversation(page, tmp_path, "With a menu", "a", "b")
    entry(page, "With a menu").get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.locator("[role=menuitem]:focus").wait_for()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText") == "Export"
    page.keyboard.press("Escape")
    page.get_by_role("menu").wait_for(state="detached")
    assert page.evaluate("document.activeElement.getAttribute('aria-haspopup')") == "menu"
