"""Tab completes commands and their arguments, and leaves messages alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from service.terminal.commands import KnownWords
from service.terminal.line_editor import CommandCompleter

WORDS = KnownWords(models=["pico", "gpt2"], presets=["creative", "balanced"], chats=["trip"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/s", ["/switch", "/system", "/set", "/save"]),
        ("/switch ", ["pico", "gpt2"]),
        ("/switch g", ["gpt2"]),
        ("/set t", ["temperature", "top_p", "top_k"]),
        ("/set preset c", ["creative"]),
        ("/set seed d", ["default"]),
        ("/load tr", ["trip"]),
        ("/clear ", []),
        ("hello /s", []),
        ("/s\n/s", []),
    ],
)
def test_choices(text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    completer = CommandCompleter(lambda: WORDS)
    assert [one.text for one in completer.get_completions(Document(text), CompleteEvent())] == found


def test_files_are_completed(tmp_path: Path) -> None:
    (tmp_path / "talk.json").touch()
    completer = CommandCompleter(lambda: WORDS)
    document = Document(f"/load {tmp_path}/ta")
    assert [one.text for one in completer.get_completions(document, CompleteEvent())] == ["lk.json"]
