"""What `/set` and the options say of sampling: a preset of the server and values of one's own. Knows no terminal.

The server applies both: a request names the preset and carries the values, which go before it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from contracts.conversations import GenerationDefaults
from contracts.errors import InvalidValue, clip
from contracts.presets import Preset

PRESET: Final = "preset"
VALUE_NAMES: Final = tuple(GenerationDefaults.__struct_fields__)
SETTING_NAMES: Final = (PRESET, *VALUE_NAMES)
DEFAULT_WORDS: Final = frozenset({"default", "none", "off"})
_SPELLINGS: Final = {name.replace("_", ""): name for name in SETTING_NAMES}


class SamplingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is set now; what is not is left to the model."""

    preset: str | None = None
    values: GenerationDefaults = GenerationDefaults()

    @property
    def request_fields(self) -> dict[str, Any]:
        """As a request body has them."""
        fields = {name: value for name, value in msgspec.structs.asdict(self.values).items() if value is not None}
        return fields if self.preset is None else {PRESET: self.preset, **fields}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.request_fields.items()) or "the model's own settings"


def change(settings: SamplingSettings, name: str, text: str, presets: Sequence[Preset]) -> SamplingSettings:
    """The settings with one of them changed; `default` takes it back. Raises InvalidValue with what there is."""
    known = find_name(name)
    if known == PRESET:
        return msgspec.structs.replace(settings, preset=_read_preset(text, presets))
    value = None if text.lower() in DEFAULT_WORDS else _read_value(known, text)
    return msgspec.structs.replace(settings, values=msgspec.structs.replace(settings.values, **{known: value}))


def change_all(settings: SamplingSettings, pairs: str, presets: Sequence[Preset]) -> SamplingSettings:
    """The settings with several changed: `temperature=0.2,top_k=5`."""
    for pair in pairs.split(","):
        name, equals, text = pair.partition("=")
        if not equals:
            raise InvalidValue(f"'{clip(pair)}' is not NAME=VALUE, such as temperature=0.2.", param="set")
        settings = change(settings, name.strip(), text.strip(), presets)
    return settings


def find_name(name: str) -> str:
    """The setting that is meant: top_k, top-k and topk are one. Raises InvalidValue."""
    known = _SPELLINGS.get(name.lower().replace("_", "").replace("-", ""))
    if known is not None:
        return known
    close = [one for one in SETTING_NAMES if name and one.startswith(name.lower())]
    close += difflib.get_close_matches(name.lower(), SETTING_NAMES, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(SETTING_NAMES)}."
    raise InvalidValue(f"There is no setting '{clip(name)}'. {hint}", param="set")


def to_generation(settings: SamplingSettings, presets: Sequence[Preset]) -> GenerationDefaults | None:
    """As a saved conversation has them, which knows no presets: the preset's values under one's own."""
    values: dict[str, Any] = dict.fromkeys(VALUE_NAMES)
    for preset in presets:
        if preset.id == settings.preset:
            values |= {name: getattr(preset, name) for name in VALUE_NAMES}
    values |= {name: value for name, value in settings.request_fields.items() if name != PRESET}
    return GenerationDefaults(**values) if any(value is not None for value in values.values()) else None


def from_generation(generation: GenerationDefaults | None, presets: Sequence[Preset]) -> SamplingSettings:
    """The settings of a loaded conversation; values that are a preset's are that preset again."""
    if generation is None:
        return SamplingSettings()
    for preset in presets:
        if all(getattr(generation, name) == getattr(preset, name) for name in VALUE_NAMES):
            return SamplingSettings(preset=preset.id)
    return SamplingSettings(values=generation)


def _read_preset(text: str, presets: Sequence[Preset]) -> str | None:
    if text.lower() in DEFAULT_WORDS:
        return None
    for preset in presets:
        if preset.id == text.lower():
            return preset.id
    names = ", ".join(preset.id for preset in presets) or "none"
    raise InvalidValue(f"There is no preset '{clip(text)}'. The server has: {names}.", param=PRESET)


def _read_value(name: str, text: str) -> Any:
    try:
        found = msgspec.convert({name: text}, GenerationDefaults, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at")[0].replace("`", "").replace(" | null", "")
        reason = reason.replace("float", "a number").replace("int", "a whole number")
        raise InvalidValue(f"'{clip(text)}' cannot be {name}: {reason[0].lower()}{reason[1:]}.", param=name) from None
    value = getattr(found, name)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"'{clip(text)}' cannot be {name}: expected a number.", param=name)
    return value
