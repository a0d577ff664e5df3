"""`quire serve` from start to stop, as a user meets it: panel, curl lines, failure, signals."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.quire_process import QuireProcess, running_quire, write_tiny_model

LAST_OF_THE_PANEL = """"stream":true}'"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """A server on a free port, known to be ready; shared, except by the tests that stop one."""
    with running_quire(tmp_path_factory.mktemp("run"), "serve", str(model), "--port", "0") as process:
        process.wait_for(LAST_OF_THE_PANEL)
        yield process


def panel_requests(server: QuireProcess) -> list[list[str]]:
    """The words of each curl line that the panel shows."""
    return [shlex.split(line) for line in server.output.splitlines() if line.startswith("curl ")]


def test_panel_shows_what_is_served(server: QuireProcess) -> None:
    assert [
        word for word in ("tiny", "cpu", "float32", "full-length request", "/docs") if word not in server.output
    ] == []


def test_models_line_of_the_panel_works(server: QuireProcess) -> None:
    models = panel_requests(server)[0]
    reply: Any = httpx.get(models[-1]).raise_for_status().json()
    assert [card["id"] for card in reply["data"]] == ["tiny", "quire-pico"]


def test_chat_line_of_the_panel_works(server: QuireProcess) -> None:
    chat = panel_requests(server)[1]
    body: dict[str, Any] = {"max_tokens": 4, "ignore_eos": True}
    sent = chat[-1].removesuffix("}") + "," + httpx.Request("POST", "http://x", json=body).content.decode()[1:]
    reply = httpx.post(chat[1], content=sent, headers={"content-type": "application/json"}, timeout=60)
    assert reply.raise_for_status().json()["usage"]["completion_tokens"] == 4


def test_streamed_line_of_the_panel_works(server: QuireProcess) -> None:
    streamed = panel_requests(server)[2]
    assert streamed[1] == "-N"
    headers = {"content-type": "application/json"}
    reply = httpx.post(streamed[2], content=streamed[-1], headers=headers, timeout=60)
    assert reply.text.endswith("data: [DONE]\n\n")


def test_stages_of_loading_are_told(server: QuireProcess) -> None:
    assert "loading weights ..." in server.errors


def test_second_server_on_the_port_is_refused(server: QuireProcess, model: Path, tmp_path: Path) -> None:
    port = str(httpx.URL(panel_requests(server)[0][-1]).port)
    with running_quire(tmp_path, "serve", str(model), "--port", port) as second:
        assert second.process.wait(30) == 5
        assert second.errors.startswith(f"Error: Port {port} on 127.0.0.1 is in use")


def test_model_that_cannot_be_loaded_ends_the_command_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with running_quire(tmp_path, "serve", str(tmp_path), "--port", "0") as process:
        assert process.process.wait(90) == 3
        assert process.errors.splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in process.errors


def test_signal_while_loading_ends_the_command_at_once(model: Path, tmp_path: Path) -> None:
    with running_quire(tmp_path, "serve", str(model), "--port", "0") as process:
        process.wait_for("finding the model")
        assert process.stop(signal.SIGTERM, 10) == 0
        assert "Traceback" not in process.errors


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_lets_a_running_stream_end_and_leaves_nothing_behind(
    model: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    with running_quire(tmp_path, "serve", str(model), "--port", "0") as process:
        process.wait_for(LAST_OF_THE_PANEL)
        url = panel_requests(process)[1][1].replace("/chat/", "/")
        body = {"prompt": "go on", "max_tokens": 60, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", url, json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            first = next(lines)
            process.process.send_signal(signum)
            rest = [line for line in lines if line]
        assert first.startswith("data: {")
        assert rest[-1] == "data: [DONE]" or '"shutting_down"' in rest[-1]
        assert process.process.wait(20) == 0
        assert "Traceback" not in process.errors
        with pytest.raises(ProcessLookupError):
            os.killpg(process.process.pid, 0)
