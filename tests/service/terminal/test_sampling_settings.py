"""Settings of the terminal are the server's: its presets, its names, its limits."""

from __future__ import annotations

import pytest

from contracts.conversations import GenerationDefaults
from contracts.errors import InvalidValue
from contracts.presets import PRESETS
from service.terminal.sampling_settings import (
    SamplingSettings,
    change,
    change_all,
    from_generation,
    to_generation,
)

ALL = list(PRESETS.values())
NONE = SamplingSettings()


@pytest.mark.parametrize(
    ("name", "text", "fields"),
    [
        ("temperature", "0.5", {"temperature": 0.5}),
        ("topk", "5", {"top_k": 5}),
        ("Max-Tokens", "12", {"max_tokens": 12}),
        ("seed", "-3", {"seed": -3}),
        ("preset", "creative", {"preset": "creative"}),
        ("preset", "none", {}),
        ("min_p", "default", {}),
    ],
)
def test_setting_becomes_a_field_of_requests(name: str, text: str, fields: dict[str, object]) -> None:
    assert change(NONE, name, text, ALL).request_fields == fields


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("temp", "1", "Did you mean temperature"),
        ("zzz", "1", "There are preset, temperature"),
        ("temperature", "3", "a number <= 2"),
        ("temperature", "nan", "cannot be temperature"),
        ("temperature", "warm", "cannot be temperature"),
        ("max_tokens", "0", "cannot be max_tokens"),
        ("max_tokens", "1.5", "a whole number"),
        ("preset", "wild", "The server has: balanced, creative"),
    ],
)
def test_what_cannot_be_set_is_told(name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        change(NONE, name, text, ALL)


def test_value_goes_before_the_preset_and_can_be_taken_back() -> None:
    both = change_all(NONE, "preset=creative, temperature=0.1", ALL)
    assert both.request_fields == {"preset": "creative", "temperature": 0.1}
    assert str(both) == "preset creative, temperature 0.1"
    assert change(both, "temperature", "default", ALL) == SamplingSettings(preset="creative")


def test_pair_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidValue, match="NAME=VALUE"):
        change_all(NONE, "temperature", ALL)


def test_saved_form_has_the_values_of_the_preset() -> None:
    settings = SamplingSettings(preset="creative", values=GenerationDefaults(seed=1, temperature=0.3))
    saved = to_generation(settings, ALL)
    assert saved == GenerationDefaults(temperature=0.3, top_k=80, top_p=0.95, max_tokens=768, seed=1)
    assert from_generation(saved, ALL) == SamplingSettings(values=saved)
    assert to_generation(NONE, ALL) is None
    assert from_generation(None, ALL) == NONE


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.id)
def test_saved_preset_is_known_again(preset: object) -> None:
    settings = SamplingSettings(preset=preset.id)  # type: ignore[attr-defined]
    assert from_generation(to_generation(settings, ALL), ALL) == settings
