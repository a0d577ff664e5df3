"""The conversation in the terminal: what a request carries of it, and that its file is the API's."""

from __future__ import annotations

import msgspec
import pytest

from contracts.conversations import ConversationFile, FileMessage, GenerationDefaults
from contracts.errors import InvalidValue
from service.clocks import unix_ms
from service.conversations.exchange import read_file
from service.terminal.dialogue import CANCELLED, Dialogue, decode_dialogue, encode_dialogue, to_markdown


def talk(*turns: tuple[str, str]) -> Dialogue:
    """A dialogue of questions and answers."""
    dialogue = Dialogue()
    for question, reply in turns:
        dialogue.ask(question)
        dialogue.answer(reply, "pico", "stop")
    return dialogue


def contents(dialogue: Dialogue) -> list[str]:
    return [message["content"] for message in dialogue.prompt()]


def test_prompt_is_system_then_turns_then_the_question() -> None:
    dialogue = talk(("a", "b"))
    dialogue.system = "Be brief."
    dialogue.ask("c")
    assert dialogue.prompt() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_question_without_an_answer_is_left_out() -> None:
    """As the server does it with conversations that it keeps."""
    dialogue = talk(("a", "b"))
    dialogue.ask("lost")
    dialogue.fail("engine_error")
    dialogue.ask("c")
    assert contents(dialogue) == ["a", "b", "c"]
    assert dialogue.messages[2].error == "engine_error"


def test_stopped_answer_is_kept() -> None:
    dialogue = Dialogue()
    dialogue.ask("a")
    dialogue.answer("as far as it", "pico", CANCELLED)
    assert dialogue.last_reply == "as far as it"
    assert dialogue.messages[-1].finish_reason == CANCELLED


def test_last_question_can_be_asked_again() -> None:
    dialogue = talk(("a", "b"), ("c", "d"))
    assert dialogue.reopen() == "c"
    assert contents(dialogue) == ["a", "b", "c"]
    assert dialogue.open_question == "c"
    assert Dialogue().reopen() is None


def test_oldest_turns_make_room_until_only_the_question_is_left() -> None:
    dialogue = talk(*((f"q{number}", f"a{number}") for number in range(8)))
    dialogue.ask("now")
    assert dialogue.leave_out_oldest()
    assert contents(dialogue)[0] == "q2"
    assert [dialogue.leave_out_oldest() for _ in range(7)] == [True] * 6 + [False]
    assert contents(dialogue) == ["now"]
    assert len(dialogue.messages) == 17


def test_turn_limit_of_a_loaded_conversation_holds() -> None:
    dialogue = Dialogue()
    said = [FileMessage(role="user", content="a"), FileMessage(role="assistant", content="b")]
    dialogue.load(ConversationFile(messages=said, max_length=1))
    dialogue.ask("c")
    assert contents(dialogue) == ["c"]


def test_file_is_what_the_server_imports() -> None:
    dialogue = talk(("What is a quire?", "Folded sheets."))
    dialogue.system = "Be brief."
    content = encode_dialogue(dialogue.to_file("pico", GenerationDefaults(temperature=0.0)))
    imported = read_file(msgspec.json.decode(content, type=ConversationFile), unix_ms())
    assert (imported.title, imported.system_prompt, imported.model) == ("What is a quire?", "Be brief.", "pico")
    assert imported.generation == GenerationDefaults(temperature=0.0)
    assert [message.content for message in imported.messages] == ["What is a quire?", "Folded sheets."]


def test_loading_what_was_saved_goes_on_with_it() -> None:
    dialogue = talk(("a", "b"))
    dialogue.system = "s"
    saved = dialogue.to_file("pico", None)
    loaded = Dialogue()
    loaded.load(decode_dialogue(encode_dialogue(saved), "x.json"))
    loaded.ask("c")
    assert contents(loaded) == ["s", "a", "b", "c"]
    again = loaded.to_file("pico", None)
    assert (again.created_at, again.messages[:3]) == (saved.created_at, saved.messages)


def test_names_of_an_imported_file_stay() -> None:
    dialogue = Dialogue()
    dialogue.load(ConversationFile(id="conv_1", title="Mine", created_at="2026-01-01T00:00:00+00:00", messages=[]))
    saved = dialogue.to_file(None, None)
    assert (saved.id, saved.title, saved.created_at) == ("conv_1", "Mine", "2026-01-01T00:00:00+00:00")
    dialogue.clear()
    assert dialogue.to_file(None, None).id is None


@pytest.mark.parametrize(
    "content",
    [b"no json", b"[]", b"\xff", b'{"messages": 5}', b'{"messages": [], "message_count": 3}'],
)
def test_other_files_are_refused_by_name(content: bytes) -> None:
    with pytest.raises(InvalidValue, match=r"notes\.txt"):
        decode_dialogue(content, "notes.txt")


def test_markdown_is_for_people() -> None:
    dialogue = talk(("Hi", "Hello."))
    assert to_markdown(dialogue.to_file("pico", None)) == "# Hi\n\n## You\n\nHi\n\n## pico\n\nHello.\n"
