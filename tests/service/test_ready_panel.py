"""The panel tells the truth about what was started, and its commands can be pasted into a shell."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from contracts.engine import EngineInfo
from contracts.settings import ServerSettings, Settings
from service.ready_panel import curl_lines, describe, print_ready_panel
from tests.fakes import fake_engine_info


@pytest.fixture
def info() -> EngineInfo:
    base = fake_engine_info(Path("somewhere"))
    return msgspec.structs.replace(
        base, model_name="quire-pico", max_model_len=1024, num_blocks=1000, block_size=16, num_parameters=5_836_288
    )


def test_rows_hold_addresses_and_figures(info: EngineInfo) -> None:
    rows = dict(describe(info, "http://127.0.0.1:8001", 1.25))
    assert rows["API"] == "http://127.0.0.1:8001/v1"
    assert rows["Page"] == "http://127.0.0.1:8001/"
    assert rows["Docs"] == "http://127.0.0.1:8001/docs"
    assert "5.8 M parameters" in rows["Model"]
    assert rows["KV cache"] == "1,000 blocks x 16 tokens: holds 15 full-length requests of 1,024"
    assert rows["Started in"] == "1.2 s"


@pytest.mark.parametrize("width", [40, 200])
def test_commands_are_printed_unbroken_at_any_width(info: EngineInfo, width: int) -> None:
    out = io.StringIO()
    settings = Settings(server=ServerSettings(host="0.0.0.0", port=8001))  # noqa: S104
    print_ready_panel(settings, info, 1.0, Console(file=out, width=width))
    expected = curl_lines("http://127.0.0.1:8001", "quire-pico")
    assert [line for line in out.getvalue().splitlines() if line.startswith("curl")] == expected


def test_tls_and_keys_show_in_addresses_and_commands(info: EngineInfo) -> None:
    out = io.StringIO()
    server = ServerSettings(api_keys="a=sk-canary-0123456789", ssl_certfile="c.pem", ssl_keyfile="k.pem")
    print_ready_panel(Settings(server=server), info, 1.0, Console(file=out, width=200))
    text = out.getvalue()
    assert "https://127.0.0.1:8000/v1" in text
    assert "http://" not in text
    assert "canary" not in text
    lines = [line for line in text.splitlines() if line.startswith("curl")]
    assert [line.count('-H "authorization: Bearer $QUIRE_API_KEY"') for line in lines] == [1, 1, 1]


@pytest.mark.parametrize("model_name", ["org/model", 'it\'s "odd" $HOME'])
def test_commands_survive_the_shell(model_name: str) -> None:
    models, chat, streamed = (shlex.split(line) for line in curl_lines("http://[::1]:80", model_name))
    assert models == ["curl", "http://[::1]:80/v1/models"]
    assert json.loads(chat[-1])["model"] == model_name
    assert json.loads(streamed[-1])["stream"] is True
    assert streamed[1] == "-N"
