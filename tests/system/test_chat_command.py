"""`quire chat` and `quire compare` against a real server, typed into a real terminal.

The server's engine says the alphabet, one letter every hundredth of a second, for as long as it may.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from contracts.conversations import ConversationFile
from tests.system.conftest import running_paced
from tests.system.quire_process import CLI, QuireProcess
from tests.system.terminal_driver import (
    COLOURS,
    CTRL_C,
    CTRL_D,
    ENTER,
    UP,
    Terminal,
    client_environment,
    terminal_running,
)

PROMPT = "> "
LETTERS = "klmnop"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    directory = tmp_path_factory.mktemp("server")
    with running_paced(directory, "--conversations-db", str(directory / "kept.db")) as running:
        yield running


@pytest.fixture
def chat(server: QuireProcess, tmp_path: Path) -> Iterator[Any]:
    """Opens a session; the test's directory is the working directory, and its files are its own."""
    with ExitStack() as stack:

        def start(*flags: str, **options: Any) -> Terminal:
            arguments = ("chat", "--base-url", server.address, *flags)
            opened = stack.enter_context(terminal_running(tmp_path, *arguments, **options))
            opened.wait_for("/help")
            opened.wait_for(PROMPT)
            return opened

        yield start


def newest_request(server: QuireProcess) -> dict[str, Any]:
    reply = httpx.get(f"{server.address}/v1/requests?limit=1&order=newest").json()
    newest: dict[str, Any] = reply["data"][0]
    return newest


def wait_for_status(server: QuireProcess, status: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + 5.0
    while newest_request(server)["status"] != status:
        assert time.monotonic() < deadline_s, newest_request(server)
        time.sleep(0.02)
    return newest_request(server)


def read_saved(path: Path) -> ConversationFile:
    return msgspec.json.decode(path.read_bytes(), type=ConversationFile)


def run_piped(
    server: QuireProcess, directory: Path, *arguments: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *CLI, *arguments, "--base-url", server.address]
    return subprocess.run(
        command,
        check=False,
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=directory,
        env=client_environment(directory),
    )


def test_answer_streams_and_is_followed_by_its_figures(server: QuireProcess, chat: Any) -> None:
    terminal = chat("--max-tokens", "120")
    terminal.enter("hello")
    terminal.wait_for(LETTERS)
    assert newest_request(server)["status"] == "running"
    terminal.wait_for("cut at the token limit · 120 tokens")
    terminal.wait_for("prefill")
    terminal.wait_for(PROMPT)
    terminal.send(CTRL_D)
    assert terminal.wait_until_left() == 0


def test_ctrl_c_stops_the_answer_and_then_the_session(server: QuireProcess, chat: Any, tmp_path: Path) -> None:
    terminal = chat()
    terminal.enter("hello")
    terminal.wait_for(LETTERS)
    terminal.send(CTRL_C)
    terminal.wait_for("stopped · ")
    terminal.wait_for(PROMPT)
    assert wait_for_status(server, "cancelled")["completion_tokens"] < 500
    terminal.enter("/save cut.json")
    terminal.wait_for("Saved")
    terminal.wait_for(PROMPT)
    terminal.send(CTRL_C)
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for(PROMPT)
    terminal.send(CTRL_C)
    assert terminal.wait_until_left() == 0
    reply = read_saved(tmp_path / "cut.json").messages[-1]
    assert (reply.role, reply.finish_reason, LETTERS in reply.content) == ("assistant", "cancelled", True)


def test_pasted_lines_are_one_message(chat: Any, tmp_path: Path) -> None:
    terminal = chat("--max-tokens", "3")
    terminal.send("\x1b[200~line one\nline two\nline three\x1b[201~")
    terminal.wait_for("line three")
    terminal.send(ENTER)
    terminal.wait_for("3 tokens")
    terminal.wait_for(PROMPT)
    terminal.enter('"""quoted')
    terminal.enter('lines"""')
    terminal.wait_for("3 tokens")
    terminal.wait_for(PROMPT)
    terminal.enter("/save pasted.json")
    terminal.wait_for("Saved")
    said = [one.content for one in read_saved(tmp_path / "pasted.json").messages if one.role == "user"]
    assert said == ["line one\nline two\nline three", "quoted\nlines"]


def test_narrow_window_is_kept_to(chat: Any) -> None:
    terminal = chat("--max-tokens", "60", width=20)
    terminal.enter("hello")
    terminal.wait_for("60 tokens")
    terminal.wait_for(PROMPT)
    lines = terminal.text.replace("\r", "\n").split("\n")
    assert max(len(line.rstrip()) for line in lines) <= 20


def test_no_color_means_none(chat: Any) -> None:
    terminal = chat("--max-tokens", "5", environ={"NO_COLOR": "1"})
    terminal.enter("hello")
    terminal.wait_for("5 tokens")
    terminal.enter("/switch nothing")
    terminal.wait_for("Error")
    assert COLOURS.findall(terminal.raw) == []


def test_dumb_terminal_gets_text_alone(chat: Any) -> None:
    terminal = chat("--max-tokens", "30", environ={"TERM": "dumb"})
    terminal.enter("hello")
    terminal.wait_for("30 tokens")
    assert "\x1b" not in terminal.raw


def test_history_is_remembered_for_its_owner_alone(chat: Any, tmp_path: Path) -> None:
    terminal = chat()
    terminal.enter("/set seed 4711")
    terminal.wait_for("Set: seed 4711")
    terminal.wait_for(PROMPT)
    terminal.enter("quit")
    assert terminal.wait_until_left() == 0
    history = tmp_path / "state/quire/chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    again = chat()
    again.send(UP + UP)
    again.wait_for("/set seed 4711")
    again.send(ENTER)
    again.wait_for("Set: seed 4711")


def test_history_can_be_left_out(chat: Any, tmp_path: Path) -> None:
    terminal = chat("--no-history")
    terminal.enter("exit")
    assert terminal.wait_until_left() == 0
    assert not (tmp_path / "state").exists()


def test_saved_conversation_goes_on_in_another_session_and_on_the_page(
    server: QuireProcess, chat: Any, tmp_path: Path
) -> None:
    terminal = chat("--max-tokens", "4", "--system", "Say letters.")
    terminal.enter("first")
    terminal.wait_for("4 tokens")
    terminal.wait_for(PROMPT)
    terminal.enter("/save talk.json")
    terminal.wait_for("Saved")
    num_prompt_tokens = newest_request(server)["prompt_tokens"]
    imported = httpx.post(f"{server.address}/v1/conversations/import", content=(tmp_path / "talk.json").read_bytes())
    assert imported.json()["num_messages"] == 2
    again = chat()
    again.enter("/load talk.json")
    again.wait_for("first: 2 messages.")
    again.wait_for(PROMPT)
    again.enter("second")
    again.wait_for("4 tokens")
    assert newest_request(server)["prompt_tokens"] > num_prompt_tokens + len("second")
    kept = chat("--conversation", imported.json()["id"])
    kept.enter("third")
    kept.wait_for("4 tokens")
    found = httpx.get(f"{server.address}/v1/conversations/{imported.json()['id']}").json()
    assert [message["content"] for message in found["messages"]][2] == "third"


def test_unknown_model_keeps_the_session(chat: Any) -> None:
    terminal = chat()
    terminal.enter("/switch nothing")
    terminal.wait_for("The server has no model 'nothing'")
    terminal.wait_for(PROMPT)
    terminal.send("/qui\t")
    terminal.wait_for("/quit")
    terminal.send(ENTER)
    assert terminal.wait_until_left() == 0


def test_pipes_carry_plain_text(server: QuireProcess, tmp_path: Path) -> None:
    done = run_piped(server, tmp_path, "chat", "Go on:", "--max-tokens", "8", "--stats", text="abc\n")
    assert (done.returncode, len(done.stdout)) == (0, 9)
    assert done.stdout.strip().isalpha()
    assert "8 tokens" in done.stderr
    assert newest_request(server)["prompt_tokens"] > len("Go on:\n\nabc")


@pytest.mark.parametrize(
    ("arguments", "text", "code", "words"),
    [
        (("hi", "--model", "nothing"), "", 1, "no model 'nothing'"),
        (("hi", "--max-tokens", "2000000"), "", 1, "context length"),
        ((), "  \n", 2, "The question is empty"),
    ],
)
def test_errors_of_one_question_go_to_standard_error(
    server: QuireProcess, tmp_path: Path, arguments: tuple[str, ...], text: str, code: int, words: str
) -> None:
    done = run_piped(server, tmp_path, "chat", *arguments, text=text)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_reader_that_leaves_ends_the_answer_quietly(server: QuireProcess, tmp_path: Path) -> None:
    command = [sys.executable, *CLI, "chat", "hi", "--base-url", server.address]
    environ = client_environment(tmp_path)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(5)) == 5
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == b""
    wait_for_status(server, "cancelled")


def test_full_disk_is_one_line(server: QuireProcess, tmp_path: Path) -> None:
    command = [sys.executable, *CLI, "chat", "hi", "--max-tokens", "5", "--base-url", server.address]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            env=client_environment(tmp_path),
        )
    assert (done.returncode, done.stderr) == (1, "Error: The answer cannot be written: No space left on device.\n")


def test_one_question_on_a_terminal_can_be_stopped(server: QuireProcess, tmp_path: Path) -> None:
    with terminal_running(tmp_path, "chat", "hi", "--base-url", server.address) as terminal:
        terminal.wait_for(LETTERS)
        terminal.send(CTRL_C)
        assert terminal.wait_until_left() == 130
    assert "Traceback" not in terminal.text
    wait_for_status(server, "cancelled")


@pytest.mark.slow
def test_settings_are_compared_at_the_same_time(server: QuireProcess, tmp_path: Path) -> None:
    arguments = ("--json", "--set", "max_tokens=4", "--set", "max_tokens=6", "--preset", "short-answer")
    done = run_piped(server, tmp_path, "compare", "hi", *arguments)
    rows = msgspec.json.decode(done.stdout)
    assert [(row["tokens"], row["finish_reason"]) for row in rows] == [(128, "length"), (4, "length"), (6, "length")]


@pytest.mark.slow
def test_session_outlives_its_server(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        directory = tmp_path / "first"
        directory.mkdir()
        first = stack.enter_context(running_paced(directory, "--port", port))
        terminal = stack.enter_context(terminal_running(tmp_path, "chat", "--base-url", url))
        terminal.wait_for(PROMPT)
        terminal.enter("hello")
        terminal.wait_for(LETTERS)
        os.killpg(first.process.pid, signal.SIGKILL)
        terminal.wait_for("Has the server stopped?")
        terminal.wait_for(PROMPT)
        terminal.enter("/retry")
        terminal.wait_for("Nothing answers at")
        terminal.wait_for(PROMPT)
        first.wait_until_nothing_is_left()
        directory = tmp_path / "second"
        directory.mkdir()
        stack.enter_context(running_paced(directory, "--port", port))
        terminal.enter("/retry")
        terminal.wait_for(LETTERS)
