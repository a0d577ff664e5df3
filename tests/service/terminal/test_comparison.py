"""Columns of a comparison: which there are, that all are asked at once, and that one may fail alone."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from contracts.errors import InvalidValue
from contracts.openai.models import ModelCard
from contracts.presets import PRESETS, PresetList
from service.cli import main
from service.terminal.comparison import Choices, VariantResult, plan_variants
from service.terminal.comparison_view import draw_columns, is_wide
from service.terminal.sampling_settings import SamplingSettings
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api
from tests.service.terminal.test_session import CHAT, card, refusal, stream

ALL = list(PRESETS.values())
PICO, GPT2 = (msgspec.convert(card(name), ModelCard) for name in ("pico", "gpt2"))


def names(**choices: object) -> list[str]:
    plain = {"presets": (), "sets": (), "models": [PICO], "common": SamplingSettings()}
    return [variant.name for variant in plan_variants(Choices(**plain | choices), ALL)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "columns"),
    [
        ({}, ["balanced", "creative", "deterministic", "short-answer"]),
        ({"presets": ("creative",)}, ["creative"]),
        ({"presets": ("creative",), "sets": ("top_k=5",)}, ["creative", "top_k=5"]),
        ({"models": [PICO, GPT2]}, ["pico", "gpt2"]),
        ({"models": [PICO, GPT2], "sets": ("seed=1",)}, ["pico, seed=1", "gpt2, seed=1"]),
    ],
)
def test_columns(choices: dict[str, object], columns: list[str]) -> None:
    assert names(**choices) == columns


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(InvalidValue, match="17 columns"):
        names(sets=["seed=1"] * 17)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api(v1_models={"data": [card("pico")]}, v1_presets=PresetList(data=ALL)) as running:
        running.answers[CHAT] = stream("Hel", "lo")
        yield running


def compare(api: ScriptedApi, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["compare", *arguments, "--base-url", api.url])
    return result.exit_code, result.output


def test_json_has_a_row_for_each_column(api: ScriptedApi) -> None:
    code, output = compare(api, "Hi", "--json", "--preset", "creative", "--set", "seed=3", "--max-tokens", "9")
    rows = msgspec.json.decode(output, type=list[VariantResult])
    assert code == 0
    assert [(row.name, row.options) for row in rows] == [
        ("creative", {"preset": "creative", "max_tokens": 9}),
        ("seed=3", {"max_tokens": 9, "seed": 3}),
    ]
    assert {(row.text, row.finish_reason, row.tokens) for row in rows} == {("Hello", "stop", 2)}


def test_pipe_gets_one_below_the_other(api: ScriptedApi) -> None:
    code, output = compare(api, "Hi", "--system", "Be brief.")
    assert code == 0
    assert [line for line in output.splitlines() if line in PRESETS] == list(PRESETS)
    assert output.count("Hello\n") == 4
    posted = [asked.body for asked in api.asked if asked.method == "POST"]
    assert posted[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_failed_column_is_told_and_counts(api: ScriptedApi) -> None:
    api.answers[CHAT] = Answer(status=503, body=refusal("queue_full", "The queue is full.", 503))
    code, output = compare(api, "Hi", "--preset", "balanced")
    assert code == 1
    assert "Error: The queue is full." in output


@pytest.mark.parametrize("arguments", [("Hi", "--model", "nope"), ("Hi", "--preset", "wild"), ("Hi", "--set", "x=1")])
def test_unknown_names_are_refused_before_anything_is_asked(api: ScriptedApi, arguments: tuple[str, ...]) -> None:
    assert compare(api, *arguments)[0] == 1
    assert not [asked for asked in api.asked if asked.method == "POST"]


def test_columns_stand_beside_each_other_where_they_fit() -> None:
    wide = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    assert (is_wide(wide, 3), is_wide(wide, 4)) == (True, False)
    plain = {"model": "pico", "options": {}, "finish_reason": "stop", "tokens": 1, "tokens_per_s": 2.0, "ttft_ms": 3.0}
    results = [
        VariantResult(name=name, text=f"answer {name}", request_id=name, error=None, **plain)  # type: ignore[arg-type]
        for name in ("a", "b")
    ]
    wide.print(draw_columns(results))
    assert isinstance(wide.file, StringIO)
    assert "answer a" in next(line for line in wide.file.getvalue().splitlines() if "answer b" in line)
