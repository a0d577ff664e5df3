"""A start that cannot succeed is one line with cause, numbers and the flag to change, and a code of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.quire_process import running_quire

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
REFUSED = [
    pytest.param(
        ["--device", "cuda"], 3, ["torch sees no CUDA device", "use --device cpu"], id="no GPU", marks=pytest.mark.slow
    ),
    pytest.param(
        ["--kv-cache-memory", "4KiB"],
        4,
        ["has 4.0 KiB", "one request of full length (2048 tokens) needs 6.0 MiB", "raise --kv-cache-memory to 6MiB"],
        id="cache too small",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        ["--kv-cache-memory", "900TiB", "--max-num-seqs", "1000000"],
        4,
        ["would take 5.7 TiB", "are free beside the weights", "lower --kv-cache-memory to at most"],
        id="cache larger than the machine",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        ["--max-model-len", "100000000"],
        3,
        ["is above the 2048 tokens", "lower it, or leave it out"],
        id="window too long",
        marks=pytest.mark.slow,
    ),
    pytest.param(["no/such", "--offline"], 3, ["may not be asked", "--no-offline", "directory"], id="offline"),
    pytest.param(["./nowhere"], 3, ["no model directory './nowhere'", "config.json"], id="no directory"),
    pytest.param(["--host", "198.51.100.1"], 2, ["no API key", "--api-keys-file", "--insecure-no-auth"], id="no key"),
    pytest.param(["--port", "70000"], 2, ["--port is '70000'", "0 to 65535"], id="port"),
    pytest.param(["--models-file", "gone.toml"], 2, ["models file", "gone.toml", "No such file"], id="models file"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSED)
def test_start_that_cannot_succeed_says_cause_numbers_and_flag(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    with running_quire(tmp_path, "serve", "--port", "0", *arguments, environ=NO_GPU) as quire:
        assert quire.process.wait(60) == code
        last = quire.errors.splitlines()[-1]
        assert last.startswith("Error: ")
        assert [word for word in words if word not in last] == []
        assert "Traceback" not in quire.errors + quire.output
        quire.wait_until_nothing_is_left()


@pytest.mark.slow
def test_verbose_start_shows_where_it_failed(tmp_path: Path) -> None:
    with running_quire(tmp_path, "-v", "serve", "--port", "0", "--device", "cuda", environ=NO_GPU) as quire:
        assert quire.process.wait(60) == 3
        assert "Traceback" in quire.errors
