"""`quire serve` with keys and a certificate, as an operator meets it; and what must never be seen of either."""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx
import pytest

from tests.certificates import Certificate, make_certificate
from tests.system.quire_process import QuireProcess, running_quire, write_tiny_model

VARIABLE_KEY = "sk-canary-in-variable-0123456789"
FILE_KEY = "sk-canary-in-file-0123456789"
WRONG_KEY = "sk-canary-wrong-0123456789"
PROMPT = "the canary of the prompt"
FORGED = '\r\n{"event":"forged"}\x1b[31m'


class SecuredServer(NamedTuple):
    """A running server and the certificate that its clients trust."""

    quire: QuireProcess
    certificate: Certificate

    def client(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        context = ssl.create_default_context(cafile=self.certificate.certfile)
        return httpx.Client(base_url=self.quire.address, headers=headers, verify=context, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """With a key in the variable and one in a file, at the most talkative log level."""
    directory = tmp_path_factory.mktemp("secured")
    certificate = make_certificate(directory)
    keys_file = directory / "keys.toml"
    keys_file.write_text(f'[[keys]]\nlabel = "filed"\nkey = "{FILE_KEY}"\n')
    model = write_tiny_model(directory / "tiny")
    arguments = ["serve", str(model), "--port", "0", "--dtype", "float32", "--log-level", "debug"]
    arguments += ["--ssl-certfile", certificate.certfile, "--ssl-keyfile", certificate.keyfile]
    environ = {"LLM_API_KEYS": f"env={VARIABLE_KEY}", "LLM_API_KEYS_FILE": str(keys_file)}
    with running_quire(directory, *arguments, environ=environ) as quire:
        quire.wait_for('"stream":true}')
        yield SecuredServer(quire, certificate)


def shown_commands(server: SecuredServer) -> list[str]:
    return [line for line in server.quire.output.splitlines() if line.startswith("curl ")]


def test_panel_shows_https_and_the_header_of_a_key(server: SecuredServer) -> None:
    assert server.quire.address.startswith("https://")
    assert "http://" not in server.quire.output
    assert ["$QUIRE_API_KEY" in command for command in shown_commands(server)] == [True] * 3


@pytest.mark.parametrize("key", [VARIABLE_KEY, FILE_KEY])
def test_shown_header_presents_the_key_that_the_shell_knows(server: SecuredServer, key: str) -> None:
    """The shell expands the words of the command as it would for curl."""
    command = shown_commands(server)[0].replace("curl ", "printf '%s\\n' ", 1)
    environ = {**os.environ, "QUIRE_API_KEY": key}
    words = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=True).stdout
    flag, header, url = words.splitlines()
    name, _, value = header.partition(": ")
    assert (flag, shlex.quote(url)) == ("-H", url)
    with server.client(None) as client:
        assert client.get(url, headers={name: value}).json()["data"][0]["id"] == "tiny"


@pytest.mark.parametrize("key", [None, WRONG_KEY])
def test_others_are_refused(server: SecuredServer, key: str | None) -> None:
    with server.client(key) as client:
        replies = [client.get("/v1/models"), client.post("/v1/completions", json={"prompt": PROMPT})]
    assert [reply.status_code for reply in replies] == [401, 401]


def test_page_opens_with_the_key_as_password(server: SecuredServer) -> None:
    with server.client(None) as client:
        page = client.get("/", auth=("anyone", FILE_KEY), headers={"accept": "text/html"})
        asked = client.get("/", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert asked.headers["www-authenticate"] == 'Basic realm="quire"'


def test_neither_keys_nor_prompts_are_seen_anywhere(server: SecuredServer) -> None:
    """Not on the command line, in the output, in the log at its most talkative, nor in replies about failures."""
    with server.client(VARIABLE_KEY) as client:
        served = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 2})
        refused = [
            client.post("/v1/completions", json={"prompt": PROMPT, "n": "canary"}),
            client.post("/v1/completions", json={"prompt": PROMPT, "surplus": PROMPT}),
            client.post("/v1/completions", content=f'{{"prompt": "{PROMPT}'.encode()),
            client.post("/v1/completions", json={"prompt": PROMPT * 1000}),
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": PROMPT}], "top_k": -9}),
            client.get("/v1/models", headers={"authorization": f"Bearer {WRONG_KEY}"}),
        ]
    assert served.status_code == 200
    assert [reply.status_code for reply in refused] == [400, 400, 400, 400, 400, 401]
    assert [reply.text for reply in refused if PROMPT in reply.text or "sk-" in reply.text] == []
    command_line = Path(f"/proc/{server.quire.process.pid}/cmdline").read_bytes()
    assert b"canary" not in command_line
    assert "canary" not in server.quire.output + server.quire.errors


def test_a_log_line_is_one_event_whatever_a_caller_sends(server: SecuredServer) -> None:
    with server.client(VARIABLE_KEY) as client:
        for path in (f"/{quote(FORGED)}", f"/v1/models/{quote(FORGED)}"):
            client.get(path)
        client.post("/v1/completions", json={"prompt": "a", "model": FORGED, "user": FORGED, FORGED: 1})
        client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, "user": FORGED})
        client.get("/v1/models", headers=[(b"x-request-id", b'a"},{"event":"forged"}'), (b"host", b"localhost")])
    lines = [line for line in server.quire.errors.split("\n") if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert [event for event in events if event["event"] == "forged"] == []
    assert [event for event in events if "forged" in event.get("path", "")]
    assert "\x1b" not in server.quire.errors
