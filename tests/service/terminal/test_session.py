"""A chat against a scripted server: nothing that goes wrong with one message ends it, and what was said stays."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from contracts.conversations import ConversationFile
from contracts.openai.models import ModelCard
from contracts.presets import PRESETS
from service.cli_chat import obey
from service.terminal.api_client import ApiClient
from service.terminal.session import ChatSession
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api

CHAT = "POST /v1/chat/completions"


def card(name: str, **changes: Any) -> dict[str, Any]:
    """A model as the server lists it."""
    plain = {"id": name, "created": 0, "root": name, "state": "ready", "is_default": name == "pico", "family": ""}
    unknown = ("progress", "error", "memory_bytes", "load_s", "max_model_len", "architecture", "dtype")
    rest = dict.fromkeys((*unknown, "num_parameters", "sampling_defaults"))
    return plain | rest | {"display_name": name, "description": "", "kind": "chat"} | changes


def stream(*pieces: str, ending: bytes = b"data: [DONE]\n\n", finish_reason: str = "stop") -> Answer:
    """A streamed reply."""
    choices = [{"delta": {"content": piece}} for piece in pieces] + [{"delta": {}, "finish_reason": finish_reason}]
    chunks = [{"id": "chatcmpl-1", "model": "pico", "choices": [choice]} for choice in choices]
    return Answer(body=b"".join(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks) + ending)


def refusal(code: str, message: str, status: int = 400) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "code": code}, "status_code": status})


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    models = [card("pico"), card("gpt2", state="unloaded"), card("raw", kind="base")]
    with scripted_api(v1_models={"object": "list", "data": models}) as running:
        yield running


@pytest.fixture
def session(api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatSession]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with ApiClient(api.url) as client:
        console = Console(file=StringIO(), width=80, highlight=False)
        made = ChatSession(client, console, msgspec.convert(card("pico"), ModelCard))
        made.presets = list(PRESETS.values())
        yield made


def shown(session: ChatSession) -> str:
    file = session.console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def test_message_is_answered_and_kept(
    session: ChatSession, api: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[CHAT] = stream("Hel", "lo")
    obey(session, "/set preset creative")
    obey(session, "Hi")
    assert capsys.readouterr().out == "Hello\n"
    assert session.dialogue.last_reply == "Hello"
    asked = api.asked[0].body
    assert (asked["messages"], asked["preset"]) == ([{"role": "user", "content": "Hi"}], "creative")
    assert "2 tokens" in shown(session)


def test_refused_message_can_be_asked_again(session: ChatSession, api: ScriptedApi) -> None:
    api.answers[CHAT] = Answer(status=503, body=refusal("queue_full", "The queue is full.", 503))
    obey(session, "Hi")
    assert "Error: The queue is full." in shown(session)
    api.answers[CHAT] = stream("Hello")
    obey(session, "/retry")
    assert [message.content for message in session.dialogue.messages] == ["Hi", "Hello"]


def test_error_in_an_answer_keeps_what_came(session: ChatSession, api: ScriptedApi) -> None:
    api.answers[CHAT] = stream("As far", ending=b"data: " + refusal("engine_error", "It failed.", 500) + b"\n\n")
    obey(session, "Hi")
    assert "Error: It failed." in shown(session)
    assert "What came is kept" in shown(session)
    assert (session.dialogue.last_reply, session.dialogue.messages[-1].finish_reason) == ("As far", "error")


def test_connection_that_breaks_keeps_the_session(session: ChatSession, api: ScriptedApi) -> None:
    api.answers[CHAT] = msgspec.structs.replace(stream("As far", ending=b""), is_whole=False)
    assert not obey(session, "Hi")
    assert "Has the server stopped?" in shown(session)
    assert session.dialogue.last_reply == "As far"


def test_prompt_that_is_too_long_loses_its_oldest_turns(session: ChatSession, api: ScriptedApi) -> None:
    api.answers[CHAT] = stream("b")
    obey(session, "a")
    api.answers[CHAT] = Answer(status=400, body=refusal("context_length_exceeded", "Too long."))
    obey(session, "c")
    assert [len(asked.body["messages"]) for asked in api.asked if asked.method == "POST"] == [1, 3, 1]
    assert "Error: Too long." in shown(session)
    assert len(session.question().messages) == 3, "what did not help is taken back"


def test_base_model_continues_the_message_alone(session: ChatSession, api: ScriptedApi) -> None:
    api.answers["POST /v1/completions"] = stream()
    obey(session, "/switch raw")
    obey(session, "Once")
    assert "base model" in shown(session)
    assert api.asked[-2].body["prompt"] == "Once"


def test_switch_shows_that_a_model_cannot_be_loaded(session: ChatSession, api: ScriptedApi) -> None:
    failed = b"data: " + refusal("model_load_failed", "The weights are damaged.", 503) + b"\n\n"
    api.answers["POST /v1/models/gpt2/load"] = Answer(body=failed)
    obey(session, "/switch gpt2")
    assert "Error: The weights are damaged." in shown(session)
    assert session.model.id == "pico"


def test_switch_tells_the_stages_of_loading(session: ChatSession, api: ScriptedApi) -> None:
    cards = [
        card("gpt2", state="loading", progress={"stage": "loading weights", "fraction": 0.5}),
        card("gpt2", state="ready"),
    ]
    events = b"".join(b"data: " + msgspec.json.encode(one) + b"\n\n" for one in cards)
    api.answers["POST /v1/models/gpt2/load"] = Answer(body=events + b"data: [DONE]\n\n")
    obey(session, "/switch gpt2")
    assert "loading weights ..." in shown(session)
    assert session.model.id == "gpt2"


def test_key_that_may_not_load_leaves_it_to_the_first_message(session: ChatSession, api: ScriptedApi) -> None:
    api.answers["POST /v1/models/gpt2/load"] = Answer(status=403, body=refusal("insufficient_scope", "No.", 403))
    obey(session, "/switch gpt2")
    assert session.model.id == "gpt2"


def test_unknown_model_is_told_with_the_nearest(session: ChatSession) -> None:
    obey(session, "/switch gpt3")
    assert "Did you mean gpt2?" in shown(session)
    assert session.model.id == "pico"


def test_conversation_of_the_server_goes_on_there(session: ChatSession, api: ScriptedApi) -> None:
    path = "/v1/conversations/conv_1"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    detail = {"id": "conv_1", "title": "a", "created_at": 1, "updated_at": 1, "model": None, "system_prompt": None}
    detail |= {"max_turns": 9, "generation": None, "num_messages": 2}
    kept = detail | {"messages": [one | {"id": one["content"], "created_at": 1} for one in said]}
    for route, body in {f"GET {path}/export": {"messages": said}, f"GET {path}": kept, f"PATCH {path}": detail}.items():
        api.answers[route] = Answer(body=msgspec.json.encode(body))
    api.answers[f"DELETE {path}/messages/b"] = Answer(body=msgspec.json.encode(kept))
    api.answers[CHAT] = stream("c")
    session.open_kept("conv_1")
    obey(session, "/retry")
    obey(session, "/system Be brief.")
    posted = next(asked.body for asked in api.asked if asked.method == "POST")
    assert (posted["conversation"], posted["messages"]) == ("conv_1", [{"role": "user", "content": "a"}])
    assert ("DELETE", f"{path}/messages/b") in [(asked.method, asked.path) for asked in api.asked]
    assert api.asked[-1].body == {"system_prompt": "Be brief."}
    obey(session, "/clear")
    assert session.kept_id is None


def test_saved_conversation_goes_on_after_clear(session: ChatSession, api: ScriptedApi, tmp_path: Path) -> None:
    api.answers[CHAT] = stream("b")
    for line in ("/system Be brief.", "/set temperature 0", "a", "/save", "/clear", "/set temperature 1"):
        obey(session, line)
    assert session.dialogue.messages == []
    obey(session, "/load a")
    obey(session, "/export a.md")
    assert [message["content"] for message in session.dialogue.prompt()] == ["Be brief.", "a", "b"]
    assert session.settings.request_fields == {"temperature": 0.0}
    saved = msgspec.json.decode((tmp_path / "data/quire/chats/a.json").read_bytes(), type=ConversationFile)
    assert saved.message_count == {"system": 1, "user": 1, "assistant": 1}
    assert (tmp_path / "a.md").read_text().startswith("# a\n\n## System")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/switch", "Name a model"),
        ("/set temperature", "Give temperature a value"),
        ("/set nothing 1", "no setting"),
        ("/load nowhere", "no file nowhere"),
        ("/export", "Name a file"),
        ("/export /nowhere/x.json", "cannot be written"),
        ("/why", "Nothing was asked"),
        ("/retry", "Nothing was asked"),
        ("/nosuch", "no command /nosuch"),
        ("/help", "Ctrl-C"),
        ("/models", "gpt2"),
        ("/set", "Presets: balanced"),
        ("/load", "Nothing is saved"),
        ("/why chatcmpl-9", "status 404"),
    ],
)
def test_every_command_says_something(session: ChatSession, line: str, words: str) -> None:
    assert not obey(session, line)
    assert words in " ".join(shown(session).split())


def test_quit_ends(session: ChatSession) -> None:
    assert obey(session, "/quit")
