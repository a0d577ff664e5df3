"""`quire doctor`, `smoke`, `ps` and `monitor` as operators type them, against a real server of the embedded model."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from contracts.checkup import FAILED_EXIT_CODE, Checkup
from contracts.conversations import ConversationList
from contracts.overview import Overview
from service.terminal import smoke_operations
from service.terminal.api_client import ApiClient
from service.terminal.smoke import all_checks, examine_check
from service.terminal.smoke_session import SmokeSession
from tests.system.breaking_proxy import Break, broken
from tests.system.quire_process import CLI, READY, QuireProcess, running_quire

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    directory = tmp_path_factory.mktemp("operations")
    flags = ("--port", "0", "--conversations-db", str(directory / "c.db"))
    with running_quire(directory, "serve", *flags) as process:
        process.wait_for(READY)
        yield process


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(path for path in sys.path if path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LLM_", "OPENAI_"))}
    return {**kept, "PYTHONPATH": path, "XDG_DATA_HOME": str(tmp_path), **more}


def run_quire(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *CLI, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=tmp_path,
        env=environment(tmp_path),
    )


def test_smoke_tries_every_route_and_leaves_nothing_behind(server: QuireProcess, tmp_path: Path) -> None:
    done = run_quire(tmp_path, "smoke", "--base-url", server.address, "--json")
    checkup = msgspec.json.decode(done.stdout, type=Checkup)
    assert [(one.name, one.summary) for one in checkup.findings if one.state != "ok"] == []
    assert (done.returncode, checkup.is_well) == (0, True)
    coverage = checkup.findings[-1]
    assert coverage.evidence["num_tried"] == coverage.evidence["num_routes"]
    with ApiClient(server.address) as client:
        assert client.get_json("/v1/conversations", ConversationList).data == []


def change_streams(route: str, asked: bytes, answered: bytes) -> bytes:
    return answered.replace(b'"text":"', b'"text":"x', 1) if b'"stream":true' in asked else answered


def count_wrong(route: str, asked: bytes, answered: bytes) -> bytes:
    return re.sub(rb'"total_tokens":[0-9]+', b'"total_tokens":1', answered)


def cut_done(route: str, asked: bytes, answered: bytes) -> bytes:
    return answered.replace(b"data: [DONE]\n\n", b"")


def blame_nobody(route: str, asked: bytes, answered: bytes) -> bytes:
    return re.sub(rb'"param":"[a-z_]+"', b'"param":null', answered)


def call_it_completed(route: str, asked: bytes, answered: bytes) -> bytes:
    return answered.replace(b'"status":"cancelled"', b'"status":"failed"')


def freeze_metrics(route: str, asked: bytes, answered: bytes) -> bytes:
    return re.sub(rb"(?m)^(quire_[a-z_]+_total\{[^}]*\}) .*$", rb"\1 5.0", answered)


def lose_spans(route: str, asked: bytes, answered: bytes) -> bytes:
    return re.sub(rb'"traceID":"[0-9a-f]+"', b'"traceID":"0"', answered)


def forget_title(route: str, asked: bytes, answered: bytes) -> bytes:
    return answered.replace(b"quire smoke, changed", b"quire smoke") if route.startswith("PATCH") else answered


@pytest.mark.parametrize(
    ("break_reply", "check", "words"),
    [
        (change_streams, "completions", "as a stream, both at temperature 0"),
        (count_wrong, "completions", "counts 1 tokens in all"),
        (cut_done, "completions", "without [DONE]"),
        (blame_nobody, "refusals", "with max_tokens -1 blames None"),
        (call_it_completed, "disconnect", "recorded as failed"),
        (freeze_metrics, "metrics", "does not move after a completion: quire_requests_total"),
        (lose_spans, "jaeger", "shows another trace"),
        (forget_title, "conversations", "keeps the old title"),
    ],
)
def test_broken_server_fails_in_the_right_line(
    server: QuireProcess, monkeypatch: pytest.MonkeyPatch, break_reply: Break, check: str, words: str
) -> None:
    monkeypatch.setattr(smoke_operations, "METRICS_WAIT_S", 0.3)
    by_name = {one.name: one for one in all_checks()}
    with broken(server.address, break_reply) as url, ApiClient(url) as client:
        session = SmokeSession(client, None)
        session.trace_id = _trace_of(server)
        finding = examine_check(by_name[check], session)
    assert (finding.name, finding.state) == (check, "failed")
    assert words in finding.summary


def _trace_of(server: QuireProcess) -> str:
    with ApiClient(server.address) as client:
        reply = client.exchange("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    return reply.headers["x-trace-id"]


@pytest.mark.slow
def test_smoke_leaves_with_1_where_something_is_broken(server: QuireProcess, tmp_path: Path) -> None:
    with broken(server.address, count_wrong) as url:
        done = run_quire(tmp_path, "smoke", "--base-url", url)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL completions")]
    assert "counts" in line


def test_doctor_finds_all_well_but_the_port_of_the_server(server: QuireProcess, tmp_path: Path) -> None:
    """Torch, transformers, the engine and the exporter at work, for real."""
    port = server.address.rpartition(":")[2]
    done = run_quire(tmp_path, "doctor", "--port", port, "--json")
    checkup = msgspec.json.decode(done.stdout, type=Checkup)
    bad = [one for one in checkup.findings if one.state in ("failed", "warning")]
    assert [one.name for one in bad] == ["port"]
    assert f"Port {port} on 127.0.0.1 is in use by" in bad[0].summary
    tokens = next(one for one in checkup.findings if one.name == "tokens")
    assert tokens.evidence["num_equal_tokens"] == tokens.evidence["num_tokens"]
    assert done.returncode == FAILED_EXIT_CODE


def test_ps_shows_the_model_and_what_it_did(server: QuireProcess, tmp_path: Path) -> None:
    with ApiClient(server.address) as client:
        client.exchange("POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})
    overview = msgspec.json.decode(
        run_quire(tmp_path, "ps", "--base-url", server.address, "--json").stdout, type=Overview
    )
    assert overview.models[0].id == "quire-pico"
    assert overview.requests[0].completion_tokens > 0


class Terminal:
    """A command in a terminal of its own. Owner: the test."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, *CLI, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=tmp_path,
            env=environment(tmp_path, TERM="xterm", COLUMNS="60", LINES="24", NO_COLOR="1"),
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = ours
        self.text = ""

    def wait_for(self, words: str) -> None:
        """Return when they have been written."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while words not in self.text:
            assert time.monotonic() < deadline_s, self.text[-2000:]
            ready, _, _ = select.select([self._screen], [], [], 0.5)
            self.text += os.read(self._screen, 65536).decode("utf-8", "replace") if ready else ""

    def press(self, key: bytes) -> int:
        """The exit code after it."""
        os.write(self._screen, key)
        return self._end()

    def interrupt(self) -> int:
        """The exit code after what Ctrl-C sends."""
        self._process.send_signal(signal.SIGINT)
        return self._end()

    def _end(self) -> int:
        try:
            return self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._screen)


def test_monitor_draws_in_a_terminal_and_leaves_with_q(server: QuireProcess, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "monitor", "--base-url", server.address, "--refresh", "0.1")
    terminal.wait_for("tokens/s")
    terminal.wait_for("KV ")
    assert "q quits" in terminal.text
    assert terminal.press(b"q") == 0


def test_watching_ps_leaves_with_control_c(server: QuireProcess, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "ps", "--watch", "--base-url", server.address)
    terminal.wait_for("quire-pico")
    assert terminal.interrupt() == 0


def test_monitor_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "monitor", "--base-url", "http://127.0.0.1:9")
    terminal.wait_for("Trying again every")
    assert terminal.press(b"\x1b") == 0
