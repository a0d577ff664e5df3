"""`quire generate` with the built-in model: settings and presets mean what they mean in the API."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from service.cli_generate import GeneratedText
from tests.system.quire_process import CLI


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *CLI, "generate", *arguments, "--num-threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_presets_prompts_and_system_prompt_are_those_of_the_api() -> None:
    done = generate("What is a quire?", "Hi.", "--preset", "deterministic", "--system", "Be brief.", "--json")
    assert done.returncode == 0, done.stderr
    first, second = (msgspec.json.decode(line, type=GeneratedText) for line in done.stdout.splitlines())
    assert (first.prompt, second.prompt) == ("What is a quire?", "Hi.")
    assert first.num_prompt_tokens > second.num_prompt_tokens
    alone = generate(
        "What is a quire?", "--temperature", "0", "--top-k", "1", "--max-tokens", "256", "--system", "Be brief."
    )
    assert alone.stdout == first.text + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "--raw", "--system", "Be brief."], "--system is for a chat"),
        (["x", "--preset", "wild"], "'wild' is not one of 'balanced', 'creative', 'deterministic', 'short-answer'"),
        (["x", "--max-tokens", "0"], "0 is not in the range x>=1"),
    ],
)
def test_nonsense_is_refused_before_the_model_is_loaded(arguments: list[str], words: str) -> None:
    done = generate(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.slow
def test_value_out_of_range_is_refused_with_its_name() -> None:
    done = generate("x", "--top-p", "2")
    assert done.returncode != 0
    assert "top_p" in done.stderr
