"""Settings from flag, environment variable, `.env` file and default, in this order of precedence.

Owns the reading of names and values as text; what settings exist is setting_fields' business. Unknown names and
impossible values are refused with the place they came from and what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from contracts.errors import SettingsError, clip
from contracts.settings import CatalogSettings, EngineSettings, ServerSettings, Settings
from contracts.sizes import parse_bytes
from service.older_names import OLDER_VARIABLES, SUCCESSORS
from service.setting_fields import VARIABLE_PREFIX, SettingField, setting_fields

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS = frozenset({"0", "false", "no", "off"})
_VARIABLE_NAME = re.compile(r"([A-Z][A-Z_]{0,39}[0-9]{0,2})(?:[\s:]|$)")


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], env_file: Path) -> Settings:
    """The settings of one command.

    `flags` maps field names to what the command line gave; None says that the flag was not given. An empty variable
    counts as unset. `env_file` may be absent. Raises SettingsError.
    """
    fields = {field.variable: field for field in setting_fields()}
    file_values = dict(_read_env_file(env_file, fields))
    _check_variables(environ, fields)
    groups: dict[str, dict[str, object]] = {"engine": {}, "catalog": {}, "server": {}}
    for field in fields.values():
        given = _first_given(field, flags, environ, file_values, env_file)
        if given is not None:
            source, value = given
            groups[field.group][field.name] = _convert(field, source, value)
    if "offline" not in groups["engine"] and environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE_WORDS:
        groups["engine"]["offline"] = True
    return Settings(
        engine=msgspec.convert(groups["engine"], EngineSettings),
        catalog=msgspec.convert(groups["catalog"], CatalogSettings),
        server=msgspec.convert(groups["server"], ServerSettings),
    )


def _first_given(
    field: SettingField,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file_values: Mapping[str, str],
    env_file: Path,
) -> tuple[str, object] | None:
    """The strongest source that names the field, as (what to call it in a message, value)."""
    if (flag := flags.get(field.name)) is not None and not field.is_secret:
        return field.flag, flag
    names = [field.variable, *(older for older, newer in OLDER_VARIABLES.items() if newer == field.variable)]
    for values, place in ((environ, ""), (file_values, f" in {env_file.name}")):
        given = [(name, value) for name in names if (value := values.get(name))]
        if len({value for _, value in given}) > 1:
            raise SettingsError(f"{given[1][0]}{place} is an older name of {given[0][0]}, and differs. Remove it.")
        if given:
            return given[0][0] + place, given[0][1]
    return None


def _convert(field: SettingField, source: str, value: object) -> object:
    """`value` as the field's type; flags arrive as text too, booleans as bool."""
    shown = "set" if field.is_secret else repr(clip(str(value)))
    problem = SettingsError(f"{source} is {shown}, but needs {field.allowed}.", param=field.name)
    if field.is_size:
        try:
            parse_bytes(str(value))
        except ValueError as error:
            raise problem from error
    if isinstance(value, str) and value.lower() in field.choices:
        value = value.lower()
    if field.is_bool and isinstance(value, str):
        value = _word_to_bool(value)
    try:
        converted: object = msgspec.convert(value, field.annotation, strict=False)
    except msgspec.ValidationError as error:
        raise problem from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise problem
    return converted


def _word_to_bool(word: str) -> object:
    lowered = word.strip().lower()
    if lowered in _TRUE_WORDS | _FALSE_WORDS:
        return lowered in _TRUE_WORDS
    return word


def _check_variables(environ: Mapping[str, str], fields: Mapping[str, SettingField]) -> None:
    for name in sorted(environ):
        if name.startswith(VARIABLE_PREFIX) and name not in fields and name not in OLDER_VARIABLES:
            raise SettingsError(f"Unknown setting {clip(name)} in the environment. {_suggest(name, fields)}")


def _read_env_file(env_file: Path, fields: Mapping[str, SettingField]) -> Iterator[tuple[str, str]]:
    """Names and values of a `.env` file: KEY=VALUE lines, `#` comments, optional quotes and `export`."""
    try:
        text = env_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read {env_file}: {error}. Make it readable UTF-8 text or remove it.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip().removeprefix("export ").strip()
        if not entry or entry.startswith("#"):
            continue
        name, equals, value = entry.partition("=")
        name = name.strip()
        if not equals:
            raise SettingsError(f"{env_file.name}, line {number}: {_shown(entry)}is not of the form NAME=value.")
        if name not in fields and name not in OLDER_VARIABLES:
            raise SettingsError(
                f"Unknown setting {_shown(name)}in {env_file.name}, line {number}. {_suggest(name, fields)}"
            )
        yield name, _unquote(value)


def _shown(text: str) -> str:
    """The variable that a line begins with, and a space; nothing where it could be part of a secret."""
    found = _VARIABLE_NAME.match(text)
    return f"{found[1]} " if found else ""


def _unquote(value: str) -> str:
    """The value without its quotes; outside quotes ` #` begins a comment."""
    stripped = value.strip()
    quote = stripped[:1]
    if quote in ("'", '"') and (end := stripped.find(quote, 1)) > 0:
        return stripped[1:end]
    return stripped.partition(" #")[0].rstrip()


def _suggest(name: str, fields: Mapping[str, SettingField]) -> str:
    if name in SUCCESSORS:
        return SUCCESSORS[name]
    wanted = name.upper().removeprefix(VARIABLE_PREFIX)
    known = [variable.removeprefix(VARIABLE_PREFIX) for variable in fields]
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    return f"Did you mean {VARIABLE_PREFIX}{close[0]}?" if close else "`quire serve --help` lists the settings."
